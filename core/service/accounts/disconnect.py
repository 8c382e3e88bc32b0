"""Letting go of an account: its credentials at once, its content in portions."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from core.accounts import store
from core.db.pool import Conn
from core.errors import InvalidInput, WrongState
from core.ledger import controls
from core.states import AccountState, RunState

PORTION = 5_000

OPEN_RUNS = (
    f"SELECT id FROM sync_run WHERE user_integration_id = %s AND state = '{RunState.RUNNING}'"
)

# In the order in which nothing is left that points to what is gone. Indexes serve each: content and
# states by the account, tasks and what was seen by the account's runs. Content is locked in
# everybody's order.
ERASE = (
    """
    DELETE FROM user_integration_content WHERE id IN (
        SELECT id FROM user_integration_content WHERE user_integration_id = %(account)s
        ORDER BY external_id LIMIT %(portion)s FOR UPDATE)
    """,
    "DELETE FROM sync_state WHERE user_integration_id = %(account)s",
    """
    DELETE FROM sync_task WHERE id IN (
        SELECT t.id FROM sync_run r JOIN sync_task t ON t.run_id = r.id
        WHERE r.user_integration_id = %(account)s LIMIT %(portion)s)
    """,
    """
    DELETE FROM sync_seen WHERE (run_id, external_id) IN (
        SELECT s.run_id, s.external_id FROM sync_run r JOIN sync_seen s ON s.run_id = r.id
        WHERE r.user_integration_id = %(account)s LIMIT %(portion)s)
    """,
    "DELETE FROM held_deletion WHERE user_integration_id = %(account)s",
    """
    DELETE FROM sync_run WHERE id IN (
        SELECT id FROM sync_run WHERE user_integration_id = %(account)s LIMIT %(portion)s)
    """,
)


def disconnect(conn: Conn, account: UUID) -> None:
    """Wipe an account's credentials and end its runs; results that are under way are refused.
    Content stays.

    Raises:
      NotFound: There is no such account.
    """
    store.load(conn, account)
    conn.execute(store.DISCONNECT, (account,))
    for (run,) in conn.execute(OPEN_RUNS, (account,)).fetchall():
        try:
            controls.cancel_run(conn, run)
        except InvalidInput:
            continue  # it has ended by itself meanwhile


def erase(conn: Conn, account: UUID) -> Iterator[int]:
    """Delete all data of a disconnected account except its row; yield each portion's size.

    A command that is interrupted leaves the rest for the next one. Blobs go later, once nothing
    names them.

    Raises:
      InvalidInput: The account is connected.
    """
    if store.load(conn, account).sync_status != AccountState.DISCONNECTED:
        raise WrongState("account-connected", account=account)
    for statement in ERASE:
        count = PORTION
        while count >= PORTION:
            count = conn.execute(statement, {"account": account, "portion": PORTION}).rowcount
            yield count


def count_content(conn: Conn, account: UUID) -> int:
    """How many items of an account are kept."""
    row = conn.execute(
        "SELECT count(*) FROM user_integration_content WHERE user_integration_id = %s", (account,)
    ).fetchone()
    return row[0] if row else 0
