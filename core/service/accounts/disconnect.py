"""Disconnect an account, and erase its data in batches."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from core.accounts import store
from core.db.pool import Conn
from core.errors import InvalidInput, NotFound, WrongState
from core.ledger import controls
from core.ledger.looks import wait_until_seen
from core.service.backend import Backend
from core.states import AccountState, RunState

BATCH_ROWS = 5_000
"""The maximum number of rows that one statement deletes."""

OPEN_RUNS = (
    f"SELECT id FROM sync_run WHERE user_integration_id = %s AND state = '{RunState.RUNNING}'"
)

# The order deletes referencing rows before the rows that they reference. Indexes serve each
# statement: content and states by the account, tasks and seen items by its runs. Content is locked
# in the order that all writers use.
ERASE = (
    """
    DELETE FROM user_integration_content WHERE id IN (
        SELECT id FROM user_integration_content WHERE user_integration_id = %(account)s
        ORDER BY external_id LIMIT %(batch_rows)s FOR UPDATE)
    """,
    "DELETE FROM sync_state WHERE user_integration_id = %(account)s",
    """
    DELETE FROM sync_task WHERE id IN (
        SELECT t.id FROM sync_run r JOIN sync_task t ON t.run_id = r.id
        WHERE r.user_integration_id = %(account)s LIMIT %(batch_rows)s)
    """,
    """
    DELETE FROM sync_seen WHERE (run_id, external_id) IN (
        SELECT s.run_id, s.external_id FROM sync_run r JOIN sync_seen s ON s.run_id = r.id
        WHERE r.user_integration_id = %(account)s LIMIT %(batch_rows)s)
    """,
    """
    DELETE FROM held_deletion_item WHERE (held_deletion_id, external_id) IN (
        SELECT i.held_deletion_id, i.external_id
        FROM held_deletion h JOIN held_deletion_item i ON i.held_deletion_id = h.id
        WHERE h.user_integration_id = %(account)s LIMIT %(batch_rows)s)
    """,
    "DELETE FROM held_deletion WHERE user_integration_id = %(account)s",
    """
    DELETE FROM sync_run WHERE id IN (
        SELECT id FROM sync_run WHERE user_integration_id = %(account)s LIMIT %(batch_rows)s)
    """,
)


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
    """Delete all data of a disconnected account except its row; yield the rows of each batch.

    After an interruption, the next call deletes the rest. Blobs are collected later, once no row
    references them.

    Raises:
      WrongState: The account is connected.
    """
    if store.load(conn, account).sync_status != AccountState.DISCONNECTED:
        raise WrongState("account-connected", account=account)
    for statement in ERASE:
        count = BATCH_ROWS
        while count >= BATCH_ROWS:
            count = conn.execute(statement, {"account": account, "batch_rows": BATCH_ROWS}).rowcount
            yield count


def count_content(conn: Conn, account: UUID) -> int:
    """Count the stored items of an account, deleted ones included."""
    row = conn.execute(
        "SELECT count(*) FROM user_integration_content WHERE user_integration_id = %s", (account,)
    ).fetchone()
    return row[0] if row else 0
