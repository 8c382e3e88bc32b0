"""The history of an account: its runs, its held deletions, its stop, and the acts of people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core.db.pool import Conn
from core.db.rows import Row
from core.errors import InvalidInput
from core.service import audit
from core.service.authorization import Principal, shown
from core.service.content.deletions import deletions
from core.service.formatting import counted, number, span
from core.service.query_timeout import QuerySlots
from core.service.runs import queries as run_queries
from core.states import AccountState, Act, Channel

MAX_EVENTS = 100
"""The number of events of a timeline, and of each kind that it reads."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
      author: The person who caused it; None for an event of the engine.
      run, task, deletion: The object of the event, if it has one.
    """

    at: datetime
    text: str
    author: str | None = None
    run: UUID | None = None
    task: int | None = None
    deletion: int | None = None


def timeline(
    conn: Conn,
    slots: QuerySlots,
    account: Row,
    *,
    reader: Principal,
    shows_deletions: bool,
    shows_acts: bool,
) -> list[Event]:
    """Return the latest events of an account, the newest first.

    Args:
      conn: A connection.
      slots: The slots of slow queries.
      account: The row of the account.
      reader: The principal who reads.
      shows_deletions: True if the reader may see held deletions.
      shows_acts: True if the reader may read the audit trail.
    """
    events = [*_runs(conn, account, reader), *_stop(account)]
    if shows_deletions:
        events += _deletions(conn, account)
    if shows_acts:
        events += _acts(conn, slots, account, reader.user_id)
    return sorted(events, key=lambda event: event.at, reverse=True)[:MAX_EVENTS]


def _runs(conn: Conn, account: Row, reader: Principal) -> Iterator[Event]:
    page = run_queries.runs.page(conn, limit=MAX_EVENTS, user_integration_id=account["id"])
    for row in page.rows:
        run = shown(reader, row)
        if run["finished_at"] is None:
            state = run_queries.shown_run_state(run["state"], account["sync_status"])
            yield Event(run["started_at"], f"Run ({run['trigger']}) {state}", run=run["id"])
            continue
        seconds = (run["finished_at"] - run["started_at"]).total_seconds()
        text = (
            f"Run ({run['trigger']}) {run['state']} after {span(seconds)}:"
            f" {counted(run['outputs_saved'], 'item')} saved,"
            f" {number(run['outputs_deleted'])} deleted"
        )
        error = f". Error of a task: {run['error']}" if run["error"] else ""
        yield Event(run["finished_at"], text + error, run=run["id"])


def _deletions(conn: Conn, account: Row) -> Iterator[Event]:
    page = deletions.page(conn, limit=MAX_EVENTS, user_integration_id=account["id"])
    for held in page.rows:
        text = f"Deletion of {number(held['vanished'])} of {counted(held['total'], 'item')} held"
        yield Event(held["created_at"], text, deletion=held["id"])


def _stop(account: Row) -> Iterator[Event]:
    if account["stopped_at"] is not None:
        is_now = account["sync_status"] == AccountState.ERROR
        detail = f": {account['status_detail']}" if is_now and account["status_detail"] else ""
        text = f"The engine stopped the account{detail}"
        yield Event(account["stopped_at"], text, task=account["stopped_by"])


def _acts(conn: Conn, slots: QuerySlots, account: Row, reader: str | None) -> Iterator[Event]:
    wanted = audit.AuditFilter(user=reader, of_user=account["user_id"], target=str(account["id"]))
    try:
        rows = audit.page(conn, slots, wanted, limit=MAX_EVENTS).rows
    except InvalidInput:  # the trail is so long that the search takes too long
        return
    for row in rows:
        yield Event(row["at"], Act(row["act"]).meaning.rstrip("."), _author(row))


def _author(row: Row) -> str:
    if row["actor_user_id"] is not None:
        return str(row["actor_user_id"])
    if row["channel"] == Channel.COMMAND:
        return f"{row['actor']} (command)"
    return str(row["actor"] or "operator")
