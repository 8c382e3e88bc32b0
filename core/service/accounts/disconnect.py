"""Disconnect an account, and erase its data in portions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from core.accounts import store
from core.content import holds, seen
from core.db.pool import Conn
from core.db.short_transactions import in_portions
from core.errors import InvalidInput, NotFound, WrongState
from core.ledger import controls
from core.ledger.looks import wait_until_seen
from core.service.backend import Backend
from core.states import AccountState, RunState

OPEN_RUNS = (
    f"SELECT id FROM sync_run WHERE user_integration_id = %s AND state = '{RunState.RUNNING}'"
)

# Each statement continues after the last row of the one before, so that it passes over no deleted
# rows. Content is locked in the order that all writers use. The unique index serves it.
ERASE_CONTENT = """
WITH gone AS (
    DELETE FROM user_integration_content WHERE id = ANY (ARRAY(
        SELECT id FROM user_integration_content
        WHERE user_integration_id = %(part)s AND external_id > %(after)s
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
RECORD_ERASURE = """
INSERT INTO erased_account (user_integration_id) VALUES (%s)
ON CONFLICT (user_integration_id) DO UPDATE
SET changed_xid = pg_current_xact_id()::text::bigint, erased_at = now()
"""
ERASE_STATES = "DELETE FROM sync_state WHERE user_integration_id = %s"
# The primary key serves it. An account has at most 400 days.
ERASE_DAYS = "DELETE FROM account_day WHERE user_integration_id = %s"
HOLDS = "SELECT id FROM held_deletion WHERE user_integration_id = %s"
# The oldest runs after this time, and whether they have tasks and seen items. `sync_run_history`
# serves it.
NEXT_RUNS = """
SELECT id, started_at, EXISTS (SELECT FROM sync_task t WHERE t.run_id = r.id),
    EXISTS (SELECT FROM sync_seen s WHERE s.run_id = r.id)
FROM sync_run r WHERE user_integration_id = %s AND started_at >= %s
ORDER BY started_at LIMIT 500
"""
ERASE_RUNS = "DELETE FROM sync_run WHERE id = ANY(%s)"


def disconnect_account(backend: Backend, account: UUID) -> None:
    """Disconnect an account, and wait until no worker starts a task of it any more.

    The workers ask running tasks to return early.

    Raises:
      NotFound: The account does not exist.
    """
    with backend.database.connection() as conn:
        disconnect(conn, account)
    wait_until_seen(backend.database)


def disconnect(conn: Conn, account: UUID) -> str:
    """Delete an account's credentials and cancel its runs. Its content stays.

    The results of tasks that still run are discarded. Workers notice the change at their next look.

    Returns:
      The state of the account before.

    Raises:
      NotFound: The account does not exist.
    """
    row = conn.execute(store.DISCONNECT, (account,)).fetchone()
    if row is None:
        raise NotFound("account-not-found", account=account)
    for (run,) in conn.execute(OPEN_RUNS, (account,)).fetchall():
        try:
            controls.cancel_run(conn, run)
        except InvalidInput:
            continue  # it ended in the meantime
    return str(row[0])


def erase(conn: Conn, account: UUID) -> Iterator[int]:
    """Delete all data of a disconnected account except its row; yield the rows of each portion.

    After an interruption, the next call deletes the rest. Once the content is deleted, the change
    feed has an entry that it was erased. Blobs are collected later, once no row references them.

    Raises:
      WrongState: The account is connected.
    """
    if store.load(conn, account).sync_status != AccountState.DISCONNECTED:
        raise WrongState("account-connected", account=account)
    yield from _in_portions(conn, ERASE_CONTENT, account, "")
    conn.execute(RECORD_ERASURE, (account,))
    yield conn.execute(ERASE_STATES, (account,)).rowcount
    yield conn.execute(ERASE_DAYS, (account,)).rowcount
    for (hold,) in conn.execute(HOLDS, (account,)).fetchall():
        yield from holds.delete_items(conn, hold)
        holds.delete_empty(conn, hold)
    since = datetime.min.replace(tzinfo=UTC)
    while runs := conn.execute(NEXT_RUNS, (account, since)).fetchall():
        for run, _, has_tasks, has_seen in runs:
            yield from _in_portions(conn, ERASE_TASKS, run, b"") if has_tasks else ()
            yield from seen.delete_seen(conn, run) if has_seen else ()
        since = runs[-1][1]
        yield conn.execute(ERASE_RUNS, ([run for run, *_ in runs],)).rowcount


def _in_portions(conn: Conn, statement: str, part: UUID, after: Any) -> Iterator[int]:
    """Erase rows of an account or a run in portions; yield the rows of each."""

    def erase_next(most: int) -> int:
        nonlocal after
        ((rows, last),) = conn.execute(statement, {"part": part, "after": after, "most": most})
        after = after if last is None else last
        return int(rows)

    return in_portions(conn, erase_next)


def count_content(conn: Conn, account: UUID) -> int:
    """Count the stored items of an account, deleted ones included."""
    row = conn.execute(
        "SELECT count(*) FROM user_integration_content WHERE user_integration_id = %s", (account,)
    ).fetchone()
    return row[0] if row else 0
