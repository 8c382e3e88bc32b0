"""The statements on `user_integration`, and the account as a row of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from psycopg.rows import class_row

from core.db.pool import Conn
from core.errors import NotFound, WrongState
from core.states import AccountState, AccountStateReason, Deletions, HeldState, RunState

LOWER_LIMIT = """
UPDATE user_integration SET limits = (
    SELECT jsonb_agg(CASE WHEN l ->> 'name' = %(name)s THEN l || jsonb_build_object(
        'lowered', %(tasks)s::int, 'lowered_at', extract(epoch FROM clock_timestamp())) ELSE l END)
    FROM jsonb_array_elements(limits) l)
WHERE id = %(id)s AND jsonb_array_length(limits) > 0
"""


@dataclass(frozen=True, slots=True)
class Account:
    """One user's connected account of an integration.

    `credentials` is ciphertext, and so is `shared_credentials`: the part that the account's
    organization has.
    """

    id: UUID
    user_id: str
    integration_domain: str
    name: str
    identity: str
    limit_group: str | None
    config: dict[str, Any]
    credentials: str | None
    credentials_version: int
    version: int
    limits: list[dict[str, Any]]
    sync_status: str
    status_reason: str | None
    status_detail: str | None
    public_hosts_only: bool = False
    shared_credentials: str | None = None

    def __repr__(self) -> str:
        return f"Account({self.id}, {self.integration_domain}, {self.name!r})"


# The leader disconnects the accounts of an organization one after the other. From the beginning,
# all of them load as disconnected.
_COLUMNS = f"""
SELECT a.id, a.user_id, a.integration_domain, a.name, a.identity, a.limit_group, a.config,
    CASE WHEN o.ending_since IS NULL THEN a.credentials END AS credentials,
    a.credentials_version, a.version, a.limits,
    CASE WHEN o.ending_since IS NULL OR a.sync_status = '{AccountState.ERASING}' THEN a.sync_status
        ELSE '{AccountState.DISCONNECTED}' END AS sync_status,
    a.status_reason, a.status_detail, a.public_hosts_only, o.credentials AS shared_credentials
FROM user_integration a LEFT JOIN organization o ON o.id = a.organization_id"""
LOAD_ACCOUNT = f"{_COLUMNS} WHERE a.id = %s"
# A config and credentials may have 64 KiB each, and a page has many accounts.
LOAD_STATUS = """
SELECT id, user_id, integration_domain, name, identity, limit_group, '{}'::jsonb AS config,
    NULL AS credentials, credentials_version, version, '[]'::jsonb AS limits, sync_status,
    status_reason, status_detail, public_hosts_only
FROM user_integration WHERE id = ANY(%s)
"""

CONNECT_ACCOUNT = f"""
INSERT INTO user_integration (id, user_id, integration_domain, name, identity, limit_group, config,
    credentials, limits,
                              poll_interval_minutes, public_hosts_only, next_sync_at,
    reader_version)
VALUES (%(id)s, %(user_id)s, %(domain)s, %(name)s, %(identity)s, %(group)s, %(config)s,
    %(credentials)s, %(limits)s,
        %(interval)s, %(public_hosts_only)s, now(),
    coalesce((SELECT reader_version FROM integration WHERE domain = %(domain)s), 0))
ON CONFLICT (user_id, integration_domain, identity) DO UPDATE SET
    name = excluded.name, limit_group = excluded.limit_group, config = excluded.config,
    credentials = excluded.credentials, limits = excluded.limits,
    poll_interval_minutes = excluded.poll_interval_minutes,
    public_hosts_only = excluded.public_hosts_only,
    credentials_version = user_integration.credentials_version + 1,
    version = user_integration.version + 1,
    sync_status = '{AccountState.ACTIVE}', status_reason = NULL, status_detail = NULL,
    consecutive_failures = 0, erasing_since = NULL, erases_account = false,
    erases_user = false,
    restored_after = CASE user_integration.sync_status WHEN '{AccountState.ERASING}' THEN ''
        ELSE user_integration.restored_after END,
    organization_id = NULL, member = NULL, left_at = NULL,
    resync_due = user_integration.resync_due OR user_integration.config <> excluded.config
        AND %(resync)s,
    drop_state = user_integration.drop_state OR user_integration.config <> excluded.config
        AND %(resync)s,
    reader_version = CASE WHEN %(reread)s THEN 0 ELSE user_integration.reader_version END,
    next_sync_at = now(), updated_at = now()
WHERE NOT user_integration.erasure_begun
RETURNING id, version = 1
"""

RETURNED = f"""sync_status = '{AccountState.ACTIVE}', status_reason = NULL, status_detail = NULL,
    consecutive_failures = 0, erasing_since = NULL, erases_account = false, erases_user = false,
    restored_after =
        CASE sync_status WHEN '{AccountState.ERASING}' THEN '' ELSE restored_after END"""
"""The columns of an account that new credentials restore."""

# Credentials restore an account whose content is hidden, unless the engine deletes the content.
SET_CREDENTIALS = f"""
UPDATE user_integration SET credentials = %(credentials)s,
    credentials_version = credentials_version + 1,
    version = version + 1, limit_group = coalesce(%(group)s, limit_group),
    public_hosts_only = public_hosts_only OR %(public_hosts_only)s, refresh_holder = NULL,
    refresh_until = NULL, organization_id = NULL, member = NULL, left_at = NULL, {RETURNED},
    next_sync_at = now(), updated_at = now()
WHERE id = %(id)s AND NOT erasure_begun
"""

SET_NOTICE = "UPDATE user_integration SET notice = %s WHERE id = %s"

# An account that stopped while its integration was paused may have no time of its next poll.
_CORRECTED = f"status_reason = '{AccountStateReason.CONFIGURATION}'"
SET_CONFIG = f"""
UPDATE user_integration SET config = %(config)s, limits = %(limits)s, version = version + 1,
    public_hosts_only = public_hosts_only OR %(public_hosts_only)s,
    resync_due = resync_due OR %(resync)s, drop_state = drop_state OR %(resync)s,
    reader_version = CASE WHEN %(reread)s THEN 0 ELSE reader_version END,
    next_sync_at = CASE WHEN %(resync)s THEN now()
        WHEN {_CORRECTED} THEN coalesce(next_sync_at, now()) ELSE next_sync_at END,
    sync_status = CASE WHEN {_CORRECTED} THEN '{AccountState.ACTIVE}' ELSE sync_status END,
    status_reason = CASE WHEN {_CORRECTED} THEN NULL ELSE status_reason END,
    status_detail = CASE WHEN {_CORRECTED} THEN NULL ELSE status_detail END,
    updated_at = now()
WHERE id = %(id)s AND (%(instead_of)s::jsonb IS NULL OR config = %(instead_of)s::jsonb)
"""

# Served by the primary key, and by the index of held deletions on the account.
SET_DELETIONS = """
UPDATE user_integration SET deletions = %(deletions)s, updated_at = now()
WHERE id = %(id)s AND deletions <> %(deletions)s
"""
# An account that keeps items holds no deletions. A refusal stays, for the case that the account
# marks items again. The leader deletes the dropped ones, in portions.
DROP_HELD_DELETIONS = f"""
UPDATE held_deletion SET state = '{HeldState.DROPPED}'
WHERE user_integration_id = %s AND state IN ('{HeldState.HELD}', '{HeldState.ACCEPTED}')
"""

# `PAUSE` and `RESUME` do not start an account in error, nor a disconnected one. The decision of a
# person stays, also for a member who has left an organization, and returns.
PAUSE = f"""
UPDATE user_integration SET sync_status = '{AccountState.PAUSED}', left_at = NULL,
    status_detail = CASE WHEN left_at IS NULL THEN status_detail END, updated_at = now()
WHERE id = %s AND sync_status IN ('{AccountState.ACTIVE}', '{AccountState.PAUSED}')
"""
RESUME = f"""
UPDATE user_integration SET sync_status = '{AccountState.ACTIVE}',
    status_detail = CASE WHEN left_at IS NULL THEN status_detail END,
    next_sync_at = least(coalesce(next_sync_at, now()), now()), updated_at = now()
WHERE id = %s AND sync_status IN ('{AccountState.ACTIVE}', '{AccountState.PAUSED}')
"""

# The provider has just accepted the account, so the cause of its error has passed.
RESUME_STOPPED = f"""
UPDATE user_integration SET sync_status = '{AccountState.ACTIVE}', status_reason = NULL,
    status_detail = NULL, consecutive_failures = 0,
    next_sync_at = least(coalesce(next_sync_at, now()), now()), updated_at = now()
WHERE id = %s AND sync_status IN ('{AccountState.ERROR}', '{AccountState.ACTIVE}')
"""

# The account stops only if the rejected credentials are still the latest.
STOP = f"""
UPDATE user_integration SET sync_status = '{AccountState.ERROR}', status_reason = %(reason)s,
    status_detail = %(detail)s, stopped_at = clock_timestamp(), stopped_by = %(task)s,
    updated_at = now()
WHERE id = %(id)s AND sync_status = '{AccountState.ACTIVE}'
  AND credentials_version = %(credentials_version)s
RETURNING id
"""

_WITHOUT_CREDENTIALS = """status_reason = NULL, status_detail = NULL, credentials = NULL,
    credentials_version = credentials_version + 1, version = version + 1, refresh_holder = NULL,
    refresh_until = NULL, next_sync_at = NULL, updated_at = now()"""
# A person's decision stays: an account that its organization has ended does not return with it.
_BY_A_PERSON = "member = CASE WHEN a.organization_id IS NOT NULL THEN a.member END"
_OLD_API = "EXISTS (SELECT FROM process WHERE kind = 'api' AND hides_erasing IS NOT TRUE)"
# Returns the state before. An account whose content is hidden stays hidden.
DISCONNECT = f"""
UPDATE user_integration a SET sync_status = '{AccountState.DISCONNECTED}', {_WITHOUT_CREDENTIALS},
    {_BY_A_PERSON}
FROM (SELECT id, sync_status FROM user_integration WHERE id = %s FOR UPDATE) before
WHERE a.id = before.id AND before.sync_status <> '{AccountState.ERASING}'
RETURNING before.sync_status
"""
# Hides the content. It does not wait with the deletion if an API of an earlier version may run,
# which would show the content. A process that has not deregistered may be stopped, and resume.
# `process` has few rows.
HIDE = f"""
UPDATE user_integration a SET sync_status = '{AccountState.ERASING}', {_WITHOUT_CREDENTIALS},
    {_BY_A_PERSON},
    erasing_since = coalesce(a.erasing_since, now()),
    erases_account = a.erases_account OR %(erases_account)s,
    erases_user = a.erases_user OR %(erases_user)s,
    erasure_begun = a.erasure_begun OR %(now)s OR {_OLD_API}
FROM (SELECT id, sync_status, erases_account, erases_user, erasure_begun FROM user_integration
    WHERE id = %(id)s FOR UPDATE) before
WHERE a.id = before.id
RETURNING a.erasure_begun AS has_begun,
    (before.sync_status, before.erases_account, before.erases_user, before.erasure_begun)
    IS DISTINCT FROM (a.sync_status, a.erases_account, a.erases_user, a.erasure_begun) AS is_new
"""

# Ends the accounts of an organization that the transaction has locked, as `DISCONNECT` and `HIDE`
# do. Only an account that the organization ends itself keeps its member, so that it returns with
# the organization. `sync_run_open` serves the condition.
LOCK_MEMBERS = """
SELECT id FROM user_integration WHERE id = ANY(%(ids)s) AND organization_id = %(organization)s
ORDER BY id FOR UPDATE
"""
END_MEMBERS = f"""
UPDATE user_integration a SET {_WITHOUT_CREDENTIALS}, organization_id = NULL, left_at = NULL,
    member = CASE WHEN a.credentials IS NOT NULL THEN a.member END,
    sync_status = CASE WHEN %(hides)s OR a.sync_status = '{AccountState.ERASING}'
        THEN '{AccountState.ERASING}' ELSE '{AccountState.DISCONNECTED}' END,
    erasing_since = CASE WHEN %(hides)s THEN coalesce(a.erasing_since, now())
        ELSE a.erasing_since END,
    erases_account = a.erases_account OR %(erases)s,
    erasure_begun = a.erasure_begun OR %(hides)s AND {_OLD_API}
WHERE a.id = ANY(%(ids)s) AND NOT EXISTS (SELECT FROM sync_run r
    WHERE r.user_integration_id = a.id AND r.state = '{RunState.RUNNING}')
"""

LOCK_SEALED_ORGANIZATIONS = """
SELECT id, credentials FROM organization
WHERE credentials IS NOT NULL AND id > %s ORDER BY id LIMIT 100 FOR UPDATE
"""
RESEAL_ORGANIZATION = "UPDATE organization SET credentials = %s WHERE id = %s"

LOCK_SEALED = """
SELECT id, credentials FROM user_integration
WHERE credentials IS NOT NULL AND id > %s ORDER BY id LIMIT 100 FOR UPDATE
"""
RESEAL = "UPDATE user_integration SET credentials = %s WHERE id = %s"


def load(conn: Conn, account_id: UUID | str) -> Account:
    """Load an account.

    Raises:
      NotFound: The account does not exist.
    """
    with conn.cursor(row_factory=class_row(Account)) as cursor:
        account = cursor.execute(LOAD_ACCOUNT, (account_id,)).fetchone()
    if account is None:
        raise NotFound("account-not-found", account=account_id)
    return account


def set_credentials(conn: Conn, params: Mapping[str, Any]) -> None:
    """Store new credentials of an account, which resumes. If its content is hidden, restore it.

    Args:
      conn: A connection.
      params: The parameters of `SET_CREDENTIALS`.

    Raises:
      NotFound: The account does not exist.
      WrongState: The engine deletes the account's content.
    """
    if conn.execute(SET_CREDENTIALS, params).rowcount == 0:
        load(conn, params["id"])
        raise WrongState("account-erasure-begun")


def set_deletions(conn: Conn, account: UUID, deletions: Deletions) -> None:
    """Set what happens to content that disappears at the source.

    With `keep`, the deletions that wait for a person are dropped. Call this in a transaction.
    """
    conn.execute(SET_DELETIONS, {"id": account, "deletions": deletions})
    if deletions is Deletions.KEEP:
        conn.execute(DROP_HELD_DELETIONS, (account,))


def load_status(conn: Conn, ids: Sequence[UUID]) -> list[Account]:
    """Load the accounts that exist, with an empty config and without credentials and limits."""
    with conn.cursor(row_factory=class_row(Account)) as cursor:
        return cursor.execute(LOAD_STATUS, (list(ids),)).fetchall()


def connect(
    conn: Conn,
    *,
    user_id: str,
    domain: str,
    name: str,
    identity: str,
    group: str | None,
    config: Mapping[str, Any],
    credentials: str | None,
    limits: Sequence[Mapping[str, Any]],
    poll_interval_minutes: int = 15,
    resync: bool = False,
    reread: bool = False,
    public_hosts_only: bool = False,
) -> tuple[UUID, bool]:
    """Insert an account, or update the one with the same user, integration and identity.

    Args:
      conn: A connection.
      user_id: The owner's id in the product.
      domain: The domain of the integration.
      name: The display name.
      identity: The id of the account at the provider.
      group: The group that shares limits; None without one.
      config: The checked config.
      credentials: Encrypted credentials.
      limits: The limits of the account, as JSON values.
      poll_interval_minutes: Minutes between the end of a run and the next run.
      resync: True if a resync is due when the config differs from the stored one.
      reread: True if the stored account needs a reread.
      public_hosts_only: True to restrict the account to public addresses.

    Returns:
      The id of the account, and True if it is new.

    Raises:
      WrongState: The engine deletes the account's content.
    """
    row = conn.execute(
        CONNECT_ACCOUNT,
        {
            "id": uuid4(),
            "user_id": user_id,
            "domain": domain,
            "name": name,
            "identity": identity,
            "group": group,
            "config": json.dumps(config),
            "credentials": credentials,
            "limits": json.dumps(limits),
            "interval": poll_interval_minutes,
            "resync": resync,
            "reread": reread,
            "public_hosts_only": public_hosts_only,
        },
    ).fetchone()
    if row is None:
        raise WrongState("account-erasure-begun")
    return row[0], row[1]
