"""Looks: reads of changed accounts and paused integrations, before a worker starts tasks.

A trigger records every change of an account's state in `control_change`, with the number of its
transaction. A process that holds work reads the changes since its last look. `process.looked_at` is
the time up to which it knows all changes; NULL means that the process holds no work, and looks
before it starts any.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core.db.pool import Conn, Database
from core.ledger.processes import ALIVE

MAX_SEEN_SECONDS = 3.0
"""The maximum time in seconds that `wait_until_seen` waits.

It is longer than `core.worker.admission.STALE_SECONDS`. A process that has not looked by then
starts no task.
"""

POLL_SECONDS = 0.05

# A transaction with a smaller number than `xmin` has ended before this look. A later look that
# starts at `xmin` therefore misses no commit, and may read a change twice. `now()` is the start of
# the transaction, so it is never later than the snapshot. `control_change_changes` serves the
# changes; `integration` has one row for each installed integration.
LOOK = """
WITH looked AS (
    UPDATE process SET looked_at = coalesce(%(applied)s, to_timestamp(0)),
        held = CASE WHEN asked_at = %(asked)s THEN %(held)s::text[] ELSE held END
    WHERE id = %(process)s RETURNING asked_at, settled_at
), horizon AS MATERIALIZED (
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin
)
SELECT h.xmin, now() AS at, EXISTS (SELECT FROM looked) AS registered,
    (SELECT asked_at FROM looked) AS asked_at, (SELECT settled_at FROM looked) AS settled_at,
    (SELECT coalesce(json_agg(json_build_array(c.id, c.user_integration_id, a.sync_status)), '[]')
     FROM control_change c LEFT JOIN user_integration a ON a.id = c.user_integration_id
     WHERE c.changed_xid >= coalesce(%(since)s, h.xmin)) AS changes,
    (SELECT coalesce(array_agg(domain), '{}') FROM integration
     WHERE paused_at IS NOT NULL
       AND (paused_until IS NULL OR paused_until > clock_timestamp())) AS paused
FROM horizon h
"""
REST = "UPDATE process SET looked_at = NULL WHERE id = %s"

# Served by the primary key of `process`, which has one row for each process.
HAS_NOT_LOOKED = f"SELECT EXISTS (SELECT FROM process WHERE looked_at <= %s AND {ALIVE})"

# Reads the changes of the last hour.
PRUNE_CHANGES = """
DELETE FROM control_change WHERE changed_at < least(now() - %s * interval '1 second', %s)
"""


@dataclass(frozen=True, slots=True)
class Look:
    """The data of one look.

    Attributes:
      xmin: The transaction number from which the next look reads.
      at: The time up to which all changes are read, by the database's clock.
      registered: False if the process has no row in `process`.
      changes: The state of each changed account by (id of the change, account); None if the account
        was erased. The account is None if an integration has changed.
      paused: The domains of all paused integrations.
      asked_at: The time of the leader's latest question which tasks the process holds; None if it
        has never asked.
      settled_at: The time at which the leader last stopped waiting for answers.
    """

    xmin: int
    at: datetime
    registered: bool
    changes: Mapping[tuple[int, str | None], str | None]
    paused: frozenset[str]
    asked_at: datetime | None = None
    settled_at: datetime | None = None


def look(
    conn: Conn,
    process: UUID,
    since: int | None,
    applied: datetime | None,
    *,
    asked: datetime | None = None,
    held: Sequence[str] = (),
) -> Look:
    """Read the changes since an earlier look, and record which look this process has applied.

    The same statement answers a question of the leader.

    Args:
      conn: A connection in autocommit mode.
      process: The id of the process.
      since: `xmin` of the last look; None reads no changes.
      applied: `at` of the last look whose changes the process has applied; None if there is none.
      asked: The time of the question that this look answers. Default: None, no answer.
      held: The ids of the messages of all in-flight tasks. Default: none.
    """
    params: dict[str, Any] = {"process": process, "since": since, "applied": applied}
    params |= {"asked": asked, "held": list(held)}
    row = conn.execute(LOOK, params).fetchone()
    assert row is not None
    xmin, at, registered, asked_at, settled_at, changes, paused = row
    states = {(id, account): status for id, account, status in changes}
    return Look(xmin, at, registered, states, frozenset(paused), asked_at, settled_at)


def rest(conn: Conn, process: UUID) -> None:
    """Record that a process holds no work, and looks before it starts any."""
    conn.execute(REST, (process,))


def wait_until_seen(database: Database, seconds: float = MAX_SEEN_SECONDS) -> bool:
    """Wait until every live process that holds work has seen all changes committed so far.

    After it has returned, no process starts a task that the changes forbid. Call it after the
    commit. It keeps no connection while it sleeps.

    Args:
      database: The connections.
      seconds: The maximum wait. Default: 3. After it, a process that has not looked starts nothing.

    Returns:
      False if a process did not look in time.
    """
    deadline = time.monotonic() + seconds
    with database.connection() as conn:
        ((committed,),) = conn.execute("SELECT clock_timestamp()")
    while True:
        with database.connection() as conn:
            ((unseen,),) = conn.execute(HAS_NOT_LOOKED, (committed,))
        if not unseen:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
