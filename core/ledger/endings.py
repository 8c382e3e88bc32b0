"""The end of an organization: its accounts are disconnected, or their content is hidden.

A request deletes the shared credentials in a short transaction. After it, no run of an account
begins, and the accounts load as disconnected. The leader disconnects them in portions, and deletes
the organization after the last one. One transaction disconnects an account and takes it out of the
organization, so another leader continues with the accounts that are left.

Until the deletion of the content begins, new credentials of an account restore it, and so does an
organization with the same member.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

from core.accounts import store
from core.db.clocks import HOUR
from core.db.pool import Conn
from core.errors import NotFound, WrongState
from core.integration.results import MEMBERS
from core.ledger import audit, erasure
from core.states import Act, AuditTarget, RunState

ROWS_PER_PORTION = 50
"""The number of accounts that one transaction ends."""

ENDING = "SELECT id FROM organization WHERE ending_since IS NOT NULL"
"""The organizations that end. Their accounts are not claimed. `organization_ending` serves it."""

BEGIN = f"""
UPDATE organization SET ending_since = clock_timestamp(), hides_content = %(hides)s,
    erases_accounts = %(erases)s, credentials = NULL, problem = NULL, updated_at = now(),
    members_due_at = clock_timestamp() + {HOUR} * interval '1 second'
WHERE id = %(id)s AND ending_since IS NULL RETURNING name
"""
COUNT = "SELECT count(*) FROM user_integration WHERE organization_id = %s"
PLANNED = "SELECT hides_content, erases_accounts FROM organization WHERE id = %s"
# Workers load these accounts again before their next task.
STOP_RUNNING = f"""
INSERT INTO control_change (user_integration_id)
SELECT a.id FROM user_integration a WHERE a.organization_id = %s AND EXISTS (
    SELECT FROM sync_run r WHERE r.user_integration_id = a.id AND r.state = '{RunState.RUNNING}')
"""
# Served by `organization_ending`.
NEXT = """
SELECT id, hides_content, erases_accounts FROM organization WHERE ending_since IS NOT NULL
ORDER BY ending_since, id LIMIT 1
"""
# Served by `user_integration_organization`. Accounts leave this index when they end.
ACCOUNTS_LEFT = "SELECT id FROM user_integration WHERE organization_id = %s LIMIT %s"
LOCK_ENDING = "SELECT FROM organization WHERE id = %s FOR UPDATE"
DELETE = """
DELETE FROM organization o WHERE id = %s AND ending_since IS NOT NULL
  AND NOT EXISTS (SELECT FROM user_integration a WHERE a.organization_id = o.id)
"""

# Wipes the lists of members, also in an account that keeps deleted items. An empty digest lets the
# item come back if the account is connected again. `user_integration_content_kind` serves it.
DELETE_MEMBERS = f"""
WITH locked AS (
    SELECT id FROM user_integration_content
    WHERE kind = '{MEMBERS}' AND user_integration_id = %s AND deleted_at IS NULL
    ORDER BY external_id FOR UPDATE
)
UPDATE user_integration_content c SET metadata = '{{}}', content_text = NULL,
    content_bytes = NULL, blob_key = NULL, hash = NULL, size = 0, digest = '', deleted_at = now(),
    updated_at = now(), changed_xid = pg_current_xact_id()::text::bigint, synced_xid = NULL
FROM locked WHERE c.id = locked.id
"""


def stop(conn: Conn, account: UUID) -> None:
    """Cancel the runs of an account, and wipe its lists of members."""
    erasure.cancel_runs(conn, account)
    # No task of a cancelled run can keep such an item afterwards.
    conn.execute(DELETE_MEMBERS, (account,))


def begin(conn: Conn, id: UUID, *, hides_content: bool, erases_accounts: bool) -> int:
    """Delete the credentials of an organization, and let the leader end its accounts.

    A repeated request changes nothing.

    Args:
      conn: A connection in autocommit mode.
      id: The organization.
      hides_content: True to hide the content, which is deleted later.
      erases_accounts: True to delete the accounts later, too.

    Returns:
      The number of accounts that are left.

    Raises:
      NotFound: The organization does not exist.
      WrongState: It ends in another way already.
    """
    params = {"id": id, "hides": hides_content, "erases": erases_accounts}
    with conn.transaction():
        row = conn.execute(BEGIN, params).fetchone()
        ((accounts,),) = conn.execute(COUNT, (id,))
        if row is not None:
            detail = {"name": row[0], "accounts": accounts}
            detail |= {"content": "deleted" if hides_content else "kept"}
            audit.record(conn, Act.ORGANIZATION_DISCONNECT, AuditTarget.ORGANIZATION, id, **detail)
            conn.execute(STOP_RUNNING, (id,))
            return int(accounts)
        planned = conn.execute(PLANNED, (id,)).fetchone()
    if planned is None:
        raise NotFound("organization-not-found", organization=id)
    if planned != (hides_content, erases_accounts):
        raise WrongState("organization-ending")
    return int(accounts)


def end_due(conn: Conn, seconds: float) -> bool:
    """End accounts of organizations that a person has disconnected.

    Args:
      conn: A connection in autocommit mode.
      seconds: The time after which no further portion begins.

    Returns:
      True if nothing is left.
    """
    deadline = time.monotonic() + seconds
    while organization := conn.execute(NEXT).fetchone():
        id, hides, erases = organization
        if accounts := [row[0] for row in conn.execute(ACCOUNTS_LEFT, (id, ROWS_PER_PORTION))]:
            for account in accounts:
                stop(conn, account)
            _end(conn, id, accounts, hides=hides, erases=erases)
        else:
            with conn.transaction():
                conn.execute(LOCK_ENDING, (id,))
                conn.execute(DELETE, (id,))
        if time.monotonic() >= deadline:
            return False
    return True


def _end(
    conn: Conn, organization: UUID, accounts: Sequence[UUID], *, hides: bool, erases: bool
) -> None:
    """End accounts that have no open run. One that a person has reconnected has left already."""
    params = {"ids": list(accounts), "organization": organization}
    with conn.transaction():
        locked = [id for (id,) in conn.execute(store.LOCK_MEMBERS, params)]
        params = {"ids": locked, "hides": hides, "erases": erases}
        conn.execute(store.END_MEMBERS, params)
