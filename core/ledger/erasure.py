"""Erasures: the content of an account is hidden, and deleted later.

A request for an erasure deletes the credentials, and sets the state `erasing`. No reader shows
the content any more (`core.content.visible`). Until the deletion begins, new credentials
restore the account. The leader begins it after the delay, deletes in portions, and resumes a
deletion that was interrupted.

A reader of the change feed passes hidden items. So the items of a restored account get new places
in the feed, and each reader meets all of them again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from core.content import holds, seen
from core.db.pool import Conn
from core.db.short_transactions import statement_in_portions
from core.errors import InvalidInput
from core.ledger import controls, organizations, quotas
from core.ledger.monotonic import Before
from core.states import AccountState, RunState

ROWS_PER_STATEMENT = 500
"""The number of rows that one transaction moves in the feed."""

OPEN_RUNS = (
    f"SELECT id FROM sync_run WHERE user_integration_id = %s AND state = '{RunState.RUNNING}'"
)

# Two processes may erase the same account. If one has finished, the account may be connected again,
# and the other one must not delete the new data.
_HAS_BEGUN = "(SELECT e.erasure_begun FROM user_integration e WHERE e.id = %(part)s)"
# Each statement continues after the last row of the one before, so that it passes over no deleted
# rows. Content is locked in the order that all writers use. The unique index serves it.
ERASE_CONTENT = f"""
WITH gone AS (
    DELETE FROM user_integration_content WHERE id = ANY (ARRAY(
        SELECT id FROM user_integration_content
        WHERE user_integration_id = %(part)s AND external_id > %(after)s AND {_HAS_BEGUN}
        ORDER BY external_id LIMIT %(most)s FOR UPDATE))
    RETURNING external_id)
SELECT count(*), (SELECT external_id FROM gone ORDER BY external_id DESC LIMIT 1) FROM gone
"""
# The unique index of tasks that begins with the run serves it.
ERASE_TASKS = """
WITH gone AS (
    DELETE FROM sync_task WHERE id = ANY (ARRAY(
        SELECT id FROM sync_task WHERE run_id = %(part)s AND dedup_key > %(after)s
        ORDER BY dedup_key LIMIT %(most)s))
    RETURNING dedup_key)
SELECT count(*), (SELECT dedup_key FROM gone ORDER BY dedup_key DESC LIMIT 1) FROM gone
"""
# The lock makes sure that the changes of an account that is connected again follow in the feed.
RECORD_ERASURE = """
INSERT INTO erased_account (user_integration_id, user_id)
SELECT id, user_id FROM user_integration WHERE id = %(part)s AND erasure_begun FOR SHARE
ON CONFLICT (user_integration_id) DO UPDATE
SET changed_xid = pg_current_xact_id()::text::bigint, erased_at = now()
"""
ERASE_STATES = f"DELETE FROM sync_state WHERE user_integration_id = %(part)s AND {_HAS_BEGUN}"
# The primary key serves it. An account has at most 400 days.
ERASE_DAYS = f"DELETE FROM account_day WHERE user_integration_id = %(part)s AND {_HAS_BEGUN}"
HOLDS = f"SELECT id FROM held_deletion WHERE user_integration_id = %(part)s AND {_HAS_BEGUN}"
# The oldest runs after this time, and whether they have tasks and seen items. `sync_run_history`
# serves it.
NEXT_RUNS = f"""
SELECT id, started_at, EXISTS (SELECT FROM sync_task t WHERE t.run_id = r.id),
    EXISTS (SELECT FROM sync_seen s WHERE s.run_id = r.id)
FROM sync_run r WHERE user_integration_id = %(part)s AND started_at >= %(since)s AND {_HAS_BEGUN}
ORDER BY started_at LIMIT 500
"""
ERASE_RUNS = "DELETE FROM sync_run WHERE id = ANY(%s)"

ENDS_WITH = """
SELECT user_id, erases_account, erases_user FROM user_integration WHERE id = %s AND erasure_begun
"""
LOCK_ERASURE = f"{ENDS_WITH} FOR UPDATE"
_IS_EMPTY = """
NOT EXISTS (SELECT FROM sync_run r WHERE r.user_integration_id = a.id)
AND NOT EXISTS (SELECT FROM user_integration_content c WHERE c.user_integration_id = a.id)
"""
DELETE_ACCOUNT = f"""
DELETE FROM user_integration a WHERE id = %s AND erasure_begun AND {_IS_EMPTY}
"""
END_ERASURE = f"""
UPDATE user_integration a SET sync_status = '{AccountState.DISCONNECTED}', erasing_since = NULL,
    erasure_begun = false, restored_after = NULL, updated_at = now()
WHERE id = %s AND erasure_begun AND {_IS_EMPTY}
"""
# The unique constraint that begins with the user serves it.
HAS_ACCOUNTS = "SELECT FROM user_integration WHERE user_id = %s LIMIT 1"
DELETE_FLOWS = "DELETE FROM oauth_flow WHERE user_id = %s"
# Recorded responses to an operator's requests also contain the user id, for a day.
DELETE_RESPONSES = "DELETE FROM idempotency_key WHERE answer->>'user_id' = %s"
ERASED = "erased"
"""The property of a recorded response without data: the ID of the account that they belonged to."""

# Recorded responses to requests about an account, and about its tasks and held deletions. Without
# its row, the account has no response either. The table has the keys of one day.
ERASE_RESPONSES = f"""
UPDATE idempotency_key SET location = NULL,
    answer = jsonb_build_object('{ERASED}', %(account)s::text)
WHERE answer->>'user_integration_id' = %(account)s
    OR %(erases_account)s::bool AND answer->>'id' = %(account)s
"""
# `subscription_user` serves it. The deliveries of a subscription are deleted with it.
DELETE_SUBSCRIPTIONS = "DELETE FROM subscription WHERE user_id = %s"
DELETE_TOKENS = "DELETE FROM api_token WHERE user_id = %s"
# The index on the user serves it. Operators still learn that the accounts were erased.
FORGET_OWNER = "UPDATE erased_account SET user_id = NULL WHERE user_id = %s"
# A request with one of the tokens may still check an account. It locks its token to store the
# account: either before this statement returns, or never.
LOCK_TOKENS = "SELECT FROM api_token WHERE user_id = %s ORDER BY id FOR UPDATE"

# `user_integration_erasing` serves it. A request that erases immediately has begun the deletion
# itself. If the request was interrupted, the leader finds the account here.
BEGIN_ERASURE = f"""
UPDATE user_integration SET erasure_begun = true, updated_at = now()
WHERE id = (SELECT id FROM user_integration
    WHERE sync_status = '{AccountState.ERASING}' AND (erasure_begun OR erasing_since < %s)
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id
"""

# `user_integration_restored` serves it.
RESTORED = f"""
SELECT id, restored_after FROM user_integration
WHERE restored_after IS NOT NULL AND sync_status <> '{AccountState.ERASING}' ORDER BY id LIMIT 1
"""
# Content is locked in the order that all writers use. The unique index serves it.
MOVE = """
WITH moved AS (
    UPDATE user_integration_content SET changed_xid = pg_current_xact_id()::text::bigint,
        synced_xid = NULL
    WHERE id = ANY (ARRAY(
        SELECT id FROM user_integration_content
        WHERE external_id > %(after)s AND user_integration_id = %(part)s
        ORDER BY external_id LIMIT %(most)s FOR UPDATE))
    RETURNING external_id)
SELECT count(*), (SELECT external_id FROM moved ORDER BY external_id DESC LIMIT 1) FROM moved
"""
# The same transaction has moved the items. If the content was hidden again in between, the next
# restore moves all items again.
MOVED = f"""
UPDATE user_integration SET restored_after = %(until)s
WHERE id = %(part)s AND restored_after = %(after)s AND sync_status <> '{AccountState.ERASING}'
"""


def cancel_runs(conn: Conn, account: UUID) -> None:
    """Cancel the open runs of an account."""
    for (run,) in conn.execute(OPEN_RUNS, (account,)).fetchall():
        try:
            controls.cancel_run(conn, run)
        except InvalidInput:
            continue  # it ended in the meantime


def erase(conn: Conn, account: UUID) -> Iterator[int]:
    """Delete all data of an account except its row; yield the rows of each portion.

    Deletes nothing unless the deletion has begun. After an interruption, the next call deletes the
    rest. Once the content is deleted, the change feed has an entry that it was erased. Blobs are
    collected later, once no row references them.
    """
    params: dict[str, Any] = {"part": account}
    yield from statement_in_portions(conn, ERASE_CONTENT, params)
    conn.execute(RECORD_ERASURE, params)
    yield conn.execute(ERASE_STATES, params).rowcount
    yield conn.execute(ERASE_DAYS, params).rowcount
    for (hold,) in conn.execute(HOLDS, params).fetchall():
        yield from holds.delete_items(conn, hold)
        holds.delete_empty(conn, hold)
    params["since"] = datetime.min.replace(tzinfo=UTC)
    while runs := conn.execute(NEXT_RUNS, params).fetchall():
        for run, _, has_tasks, has_seen in runs:
            if has_tasks:
                yield from statement_in_portions(conn, ERASE_TASKS, {"part": run}, after=b"")
            if has_seen:
                yield from seen.delete_seen(conn, run)
        params["since"] = runs[-1][1]
        yield conn.execute(ERASE_RUNS, ([run for run, *_ in runs],)).rowcount


def finish(conn: Conn, account: UUID) -> bool:
    """End the erasure of an account whose data are deleted.

    The account is disconnected, or its row is deleted. With the last account of an erased user, the
    other data of the user are deleted in the same transaction.

    Args:
      conn: A connection in autocommit mode.
      account: The id of the account.

    Returns:
      False if there are new data, which have to be erased first.
    """
    before = conn.execute(ENDS_WITH, (account,)).fetchone()
    if before is None:
        return True  # another process has finished it
    user, erases_account, erases_user = before
    if erases_account:
        conn.execute(organizations.EXCLUDE, (account,))
    with conn.transaction():
        if erases_user:
            # A request that stores an account locks its token before the account.
            conn.execute(LOCK_TOKENS, (user,))
        locked = conn.execute(LOCK_ERASURE, (account,)).fetchone()
        if locked is None:
            return True
        if locked != before:
            return False  # a request wants more to be erased
        ends = DELETE_ACCOUNT if erases_account else END_ERASURE
        if conn.execute(ends, (account,)).rowcount == 0:
            return False
        responses = {"account": str(account), "erases_account": erases_account}
        conn.execute(ERASE_RESPONSES, responses)
        if erases_user:
            delete_user(conn, user)
    return True


def delete_user(conn: Conn, user: str) -> bool:
    """Delete all other rows of a user in a transaction that has locked the user's tokens.

    Returns:
      False if the user has an account, so that the rows stay.
    """
    if conn.execute(HAS_ACCOUNTS, (user,)).fetchone() is not None:
        return False
    for statement in (
        DELETE_FLOWS,
        DELETE_RESPONSES,
        DELETE_SUBSCRIPTIONS,
        DELETE_TOKENS,
        FORGET_OWNER,
    ):
        conn.execute(statement, (user,))
    quotas.erase(conn, user)
    return True


def erase_due(conn: Conn, before: Before | None, seconds: float) -> bool:
    """Erase accounts whose delay has passed, and those whose erasure was interrupted.

    Args:
      conn: A connection in autocommit mode.
      before: The time before which erasures were requested that are due. None: none is due.
      seconds: The time after which to stop.

    Returns:
      True if nothing is left.
    """
    deadline = time.monotonic() + seconds
    while row := conn.execute(BEGIN_ERASURE, (before,)).fetchone():
        (account,) = row
        cancel_runs(conn, account)
        for _ in erase(conn, account):
            if time.monotonic() >= deadline:
                return False
        finish(conn, account)
    return True


def move_restored(conn: Conn, seconds: float) -> bool:
    """Give the items of restored accounts new places in the change feed.

    Args:
      conn: A connection in autocommit mode.
      seconds: The time after which to stop.

    Returns:
      True if nothing is left.
    """
    deadline = time.monotonic() + seconds
    while row := conn.execute(RESTORED).fetchone():
        account, after = row
        params = {"part": account, "after": after, "most": ROWS_PER_STATEMENT}
        # All others, too, lock content before accounts. So a transaction moves one portion.
        with conn.transaction():
            ((rows, last),) = conn.execute(MOVE, params)
            params["until"] = last if rows == ROWS_PER_STATEMENT else None
            conn.execute(MOVED, params)
        if time.monotonic() >= deadline:
            return False
    return True
