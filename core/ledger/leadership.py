"""Leadership: a row with a holder and a deadline, by the database's clock.

It is not an advisory lock: a stopped process would keep that forever, and the parent of a killed
dispatcher does not replace it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core.db.pool import Conn
from core.db.row_factory import dataclass_row

LEAD_SECONDS = 10.0
"""How long leadership lasts unless the leader renews it."""

VACANT_SECONDS = 20.0
"""After this long without a leader, any worker process starts a dispatcher."""

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
    """The ledger's one row, with the database's clock."""

    epoch: int
    leader: UUID | None
    leader_until: datetime | None
    last_tick_at: datetime | None
    budgets_started: bool
    now: datetime

    @property
    def leads(self) -> bool:
        """Whether a dispatcher leads now."""
        return self.leader_until is not None and self.leader_until > self.now

    @property
    def silent_seconds(self) -> float:
        """Seconds since the scheduler's last tick; infinite before the first one."""
        if self.last_tick_at is None:
            return float("inf")
        return (self.now - self.last_tick_at).total_seconds()


def lead(conn: Conn, me: UUID) -> bool:
    """Become the leader, or stay the leader. Returns False while another process leads."""
    return conn.execute(LEAD, {"me": me, "lead": LEAD_SECONDS}).fetchone() is not None


def resign(conn: Conn, me: UUID) -> None:
    """Give up leadership, so that another process can lead immediately."""
    conn.execute(RESIGN, (me,))


def vacant(conn: Conn, seconds: float = VACANT_SECONDS) -> bool:
    """Whether nobody has led for this long."""
    row = conn.execute(VACANT, (seconds,)).fetchone()
    return bool(row and row[0])


def status(conn: Conn) -> Status:
    """The ledger's one row."""
    status = conn.cursor(row_factory=dataclass_row(Status)).execute(STATUS).fetchone()
    assert status is not None, "the migrations insert the ledger's row"
    return status


def last_sequence(conn: Conn) -> int:
    """The number of the latest dispatch."""
    row = conn.execute(SEQUENCE).fetchone()
    assert row is not None
    number: int = row[0]
    return number


def renew_epoch(conn: Conn, old: int) -> int:
    """Start a new epoch: messages and results of the old one no longer match anything."""
    new = secrets.randbits(62)
    conn.execute(NEW_EPOCH, (new, old))
    return new


def start_budgets(conn: Conn) -> bool:
    """Record that budgets are counted from now on.

    Returns True to the first caller in the life of this database.
    """
    return conn.execute(START_BUDGETS).fetchone() is not None
