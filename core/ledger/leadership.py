"""Leadership: a row with a holder and a deadline, by the database's clock.

It is not an advisory lock, because a stopped process would keep that lock forever. Dramatiq does
not replace a killed dispatcher.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from core.db.clocks import LEAD_SECONDS, beyond, lasts, passed, recent
from core.db.pool import Conn
from core.db.row_factory import dataclass_row

VACANT_SECONDS = 20.0
"""Seconds without a leader after which a worker process starts a dispatcher."""

# Other dispatchers that can send. `process` has one row for each process.
_OTHERS = f"""FROM process WHERE kind = 'dispatcher' AND id <> %(me)s
    AND {recent("process.can_send_at")}"""

# A dispatcher that cannot send becomes the leader only if no other one can.
LEAD = f"""
WITH me AS (
    UPDATE process SET seen_at = clock_timestamp(), clock = %(clock)s,
        can_send_at = CASE WHEN %(can_send)s THEN clock_timestamp() END
    WHERE id = %(me)s
)
UPDATE engine_state
SET leader = %(me)s, leader_until = clock_timestamp() + %(lead)s * interval '1 second',
    nonce = %(nonce)s, nonce_at = clock_timestamp(),
    previous_nonce = CASE WHEN nonce <> %(nonce)s THEN nonce ELSE previous_nonce END,
    previous_nonce_at = CASE WHEN nonce <> %(nonce)s THEN nonce_at ELSE previous_nonce_at END
WHERE leader = %(me)s OR (leader IS NULL OR {passed("engine_state.leader_until")})
    AND (%(can_send)s OR NOT EXISTS (SELECT {_OTHERS}))
RETURNING epoch
"""
HAND_OVER = f"""
UPDATE engine_state
SET leader = next.id, leader_until = clock_timestamp() + %(lead)s * interval '1 second'
FROM (SELECT id {_OTHERS} AND can_send_at > clock_timestamp() - %(away)s * interval '1 second'
    ORDER BY can_send_at DESC LIMIT 1) next
WHERE leader = %(me)s RETURNING 1
"""
RESIGN = "UPDATE engine_state SET leader = NULL, leader_until = NULL WHERE leader = %s"
VACANT = f"""
SELECT leader_until IS NULL OR leader_until < clock_timestamp() - %s * interval '1 second'
    OR {beyond("engine_state.leader_until")}
FROM engine_state
"""
# The nonces of the present term and of the one before, if they were renewed lately. In a copy of
# the database, the nonces of the original were not.
NONCES = f"""
SELECT term.nonce FROM engine_state CROSS JOIN LATERAL (
    VALUES (nonce, nonce_at), (previous_nonce, previous_nonce_at)) AS term(nonce, renewed_at)
WHERE {recent("engine_state.nonce_at", "term.renewed_at")}
"""
NEW_EPOCH = "UPDATE engine_state SET epoch = %s WHERE epoch = %s"
STUCK = "UPDATE engine_state SET stuck = %s WHERE leader = %s"
ENGINE_STATUS = f"""
SELECT epoch, leader, last_tick_at, budgets_started, stuck, clock_timestamp() AS now,
    coalesce({lasts("engine_state.leader_until")}, false) AS leads, leader_until
FROM engine_state
"""
LAST_SEQUENCE = "SELECT last_value FROM dispatch_seq"
START_BUDGETS = (
    "UPDATE engine_state SET budgets_started = true WHERE NOT budgets_started RETURNING 1"
)


@dataclass(frozen=True, slots=True)
class Status:
    """The row of `engine_state`, and the database's clock.

    Attributes:
      leads: True if a dispatcher leads now.
      stuck: The domains in which tasks have waited for a thread for more than a minute.
    """

    epoch: int
    leader: UUID | None
    leader_until: datetime | None
    last_tick_at: datetime | None
    budgets_started: bool
    now: datetime
    leads: bool
    stuck: list[str] = field(default_factory=list)

    @property
    def silent_seconds(self) -> float:
        """Seconds since the scheduler's last tick; infinite before the first one."""
        if self.last_tick_at is None:
            return float("inf")
        return (self.now - self.last_tick_at).total_seconds()


def record_stuck(conn: Conn, me: UUID, domains: Sequence[str]) -> None:
    """Record the domains in which tasks have waited for a thread for too long."""
    conn.execute(STUCK, (list(domains), me))


def lead(conn: Conn, me: UUID, *, can_send: bool = True, nonce: int = 0) -> bool:
    """Become or remain the leader, and record whether this process can send.

    Args:
      conn: A connection in autocommit mode.
      me: The id of this dispatcher, in `process` too.
      can_send: True if this process reaches Redis. Default: True.
      nonce: The random number of this term. Default: 0.

    Returns:
      False while another process leads, or while this one cannot send and another one can.
    """
    params = {
        "me": me,
        "lead": LEAD_SECONDS,
        "can_send": can_send,
        "nonce": nonce,
        "clock": datetime.now(UTC),
    }
    return conn.execute(LEAD, params).fetchone() is not None


def hand_over(conn: Conn, me: UUID, away: float) -> bool:
    """Make a candidate that can send the leader.

    Args:
      conn: A connection in autocommit mode.
      me: The id of the leader.
      away: The seconds for which the leader has not reached Redis.

    Returns:
      False if no candidate has reached Redis since then.
    """
    params = {"me": me, "lead": LEAD_SECONDS, "away": away}
    return conn.execute(HAND_OVER, params).fetchone() is not None


def resign(conn: Conn, me: UUID) -> None:
    """Give up leadership, so that another process can lead immediately."""
    conn.execute(RESIGN, (me,))


def vacant(conn: Conn, seconds: float = VACANT_SECONDS) -> bool:
    """Return True if no process has led for this many seconds."""
    row = conn.execute(VACANT, (seconds,)).fetchone()
    return bool(row and row[0])


def status(conn: Conn) -> Status:
    """Return the row of `engine_state`."""
    status = conn.cursor(row_factory=dataclass_row(Status)).execute(ENGINE_STATUS).fetchone()
    assert status is not None, "the first migration inserts the row of engine_state"
    return status


def nonces(conn: Conn) -> set[int]:
    """Return the nonces by which this fleet may have marked Redis as its own."""
    return {nonce for (nonce,) in conn.execute(NONCES)}


def last_sequence(conn: Conn) -> int:
    """Return the sequence number of the latest dispatch."""
    row = conn.execute(LAST_SEQUENCE).fetchone()
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
