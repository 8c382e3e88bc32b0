"""Polls, deferred tasks and leases that are further ahead than they can be: the clock was set back.

Other deadlines are judged where they are read (`core.db.clocks`). These are changed here: polls and
deferred tasks become due. A lease gets its normal length, because its holder may live; a live
holder renews it.
"""

from __future__ import annotations

from core.db.clocks import MAX_LEASE_SECONDS, beyond
from core.db.indexed import IS_DEFERRED, NEXT_SYNC_LESS_INTERVAL, YEAR_2000
from core.db.pool import Conn
from core.states import AccountState, TaskState

BATCH = 1_000
"""The number of rows that one statement changes."""

# Served by `user_integration_far_ahead`, whose expression is immutable.
POLL_NOW = f"""
UPDATE user_integration SET next_sync_at = clock_timestamp() WHERE id IN (
    SELECT id FROM user_integration
    WHERE sync_status = '{AccountState.ACTIVE}'
      AND {NEXT_SYNC_LESS_INTERVAL} > now() - {YEAR_2000}
      AND {beyond("user_integration.next_sync_at")}
    LIMIT {BATCH} FOR NO KEY UPDATE SKIP LOCKED)
"""
# Served by `sync_task_deferred`, from its end.
CONTINUE_NOW = f"""
UPDATE sync_task SET available_at = clock_timestamp() WHERE id IN (
    SELECT id FROM sync_task
    WHERE {IS_DEFERRED}
      AND available_at > now() + interval '1 hour' AND {beyond("sync_task.available_at")}
    ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED)
"""

# Served by `sync_task_queued`, which has the tasks of the windows.
SHORTEN_LEASES = f"""
UPDATE sync_task SET lease_until = clock_timestamp() + %(lease)s * interval '1 second'
WHERE id IN (
    SELECT id FROM sync_task
    WHERE state = '{TaskState.QUEUED}' AND {beyond("sync_task.lease_until")}
    ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED)
"""


def shorten_leases(conn: Conn, lease_seconds: float) -> int:
    """Give leases that are too far ahead their normal length. Returns their number."""
    longest = max(lease_seconds, MAX_LEASE_SECONDS)
    return conn.execute(SHORTEN_LEASES, {"lease": lease_seconds, "longest_lease": longest}).rowcount


def make_due(conn: Conn) -> int:
    """Make polls and deferred tasks due that are too far ahead. Returns their number."""
    return sum(conn.execute(statement).rowcount for statement in (POLL_NOW, CONTINUE_NOW))
