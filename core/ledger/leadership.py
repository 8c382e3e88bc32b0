"""Leadership: a row with a holder and a deadline, by the database's clock.

It is not an advisory lock, because a stopped process would keep that lock forever. Dramatiq does
not replace a killed dispatcher.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core.db.pool import Conn
from core.db.row_factory import dataclass_row

LEAD_SECONDS = 10.0
"""The number of seconds for which a process leads, unless it renews its leadership."""

VACANT_SECONDS = 20.0
"""Seconds without a leader after which a worker process starts a dispatcher."""

LEAD = """
UPDATE engine_state
SET leader = %(me)s, leader_until = clock_timestamp() + %(lead)s * interval '1 second'
WHERE leader IS NULL OR leader = %(me)s OR leader_until < clock_timestamp()
RETURNING epoch
"""
RESIGN = "UPDATE engine_state SET leader = NULL, leader_until = NULL WHERE leader = %s"
VACANT = """
SELECT leader_until IS NULL OR leader_until < clock_timestamp() - %s * interval '1 second'
FROM engine_state
"""
NEW_EPOCH = "UPDATE engine_state SET epoch = %s WHERE epoch = %s"
STATUS = """
SELECT epoch, leader, leader_until, last_tick_at, budgets_started,
    clock_timestamp() AS now FROM engine_state
"""
SEQUENCE = "SELECT last_value FROM dispatch_seq"
START_BUDGETS = (
    "UPDATE engine_state SET budgets_started = true WHERE NOT budgets_started RETURNING 1"
)


@dataclass(frozen=True, slots=True)
class Status:
    """The row of `engine_state`, and the database's clock."""

    epoch: int
    leader: UUID | None
    leader_until: datetime | None
    last_tick_at: datetime | None
    budgets_started: bool
    now: datetime

    @property
    def leads(self) -> bool:
        """True if a dispatcher leads now."""
        return self.leader_until is not None and self.leader_until > self.now

    @property
    def silent_seconds(self) -> float:
        """Seconds since the scheduler's last tick; infinite before the first one."""
        if self.last_tick_at is None:
            return float("inf")
        return (self.now - self.last_tick_at).total_seconds()


def lead(conn: Conn, me: UUID) -> bool:
    """Become or remain the leader. Returns False while another process leads."""
    return conn.execute(LEAD, {"me": me, "lead": LEAD_SECONDS}).fetchone() is not None


def resign(conn: Conn, me: UUID) -> None:
    """Give up leadership, so that another process can lead immediately."""
    conn.execute(RESIGN, (me,))


def vacant(conn: Conn, seconds: float = VACANT_SECONDS) -> bool:
    """Return True if no process has led for this many seconds."""
    row = conn.execute(VACANT, (seconds,)).fetchone()
    return bool(row and row[0])


def status(conn: Conn) -> Status:
    """Return the row of `engine_state`."""
    status = conn.cursor(row_factory=dataclass_row(Status)).execute(STATUS).fetchone()
    assert status is not None, "the first migration inserts the row of engine_state"
    return status


def last_sequence(conn: Conn) -> int:
    """Return the sequence number of the latest dispatch."""
    row = conn.execute(SEQUENCE).fetchone()
    assert row is not None
    number: int = row[0]
    return number


def renew_epoch(conn: Conn, old: int) -> int:
    """Start a new epoch, so that messages and results of the old one match no task."""
    new = secrets.randbits(62)
    conn.execute(NEW_EPOCH, (new, old))
    return new


def start_budgets(conn: Conn) -> bool:
    """Record that budgets are in use. Return True only for the first call on a database."""
    return conn.execute(START_BUDGETS).fetchone() is not None
