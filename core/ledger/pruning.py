"""Deleting old rows, and limiting runs that grow without end. The leader runs this regularly."""

from __future__ import annotations

import time

from core.content import holds
from core.db.pool import Conn
from core.ledger.breakers import PRUNE_LIMITS
from core.ledger.looks import PRUNE_CHANGES
from core.ledger.processes import DELETE_DEAD
from core.states import RunState, TaskState

# A run with more tasks than its integration allows takes no more: a task that returns follow-ups
# parks with this reason.
OVER_LIMIT = f"""
UPDATE sync_run r SET over_limit
    = format('the run has more than %s tasks; a task may be making ever new keys', i.max_tasks)
FROM integration i WHERE i.domain = r.integration_domain AND r.state = '{RunState.RUNNING}'
    AND r.over_limit IS NULL
  AND r.started_at < now() - interval '20 seconds'
  AND EXISTS (SELECT FROM sync_task t WHERE t.run_id = r.id OFFSET i.max_tasks LIMIT 1)
"""

# Tasks are pruned run by run, so that the statement reads no rows if no run is old. A parked task
# without a retry is never pruned.
RUNS_TO_PRUNE = """
SELECT id FROM sync_run WHERE NOT pruned AND finished_at < now() - %s * interval '1 day'
ORDER BY finished_at LIMIT 100
"""
PRUNE_TASKS = f"""
DELETE FROM sync_task WHERE id = ANY (ARRAY(
    SELECT id FROM sync_task
    WHERE run_id = %s AND (state = '{TaskState.DONE}' OR retried_as IS NOT NULL)
    LIMIT 5000))
"""
MARK_PRUNED = "UPDATE sync_run SET pruned = true WHERE id = %s"
PRUNE_BLOCKS = "DELETE FROM limit_block WHERE until < now() - interval '1 hour'"
PRUNE_KEYS = "DELETE FROM idempotency_key WHERE created_at < now() - interval '1 day'"
PRUNE_ACTIVITY = "DELETE FROM throughput WHERE minute < now() - interval '1 day'"
PRUNE_FLOWS = "DELETE FROM oauth_flow WHERE expires_at < now()"
PRUNE_SESSIONS = "DELETE FROM session WHERE expires_at < now()"
PRUNE_SEEN = f"""
DELETE FROM sync_seen s WHERE NOT EXISTS (SELECT FROM sync_run r
    WHERE r.id = s.run_id AND r.state = '{RunState.RUNNING}')
"""


def prune(conn: Conn) -> None:
    """Mark runs that are too large, and delete expired rows.

    These are old limit blocks, the seen ids of ended runs, dead processes, idempotency keys, OAuth
    flows, sessions, throughput, and changes of accounts. Further, these are the breakers of limits
    that no task will probe, and large held deletions that were dropped.

    Args:
      conn: A connection in autocommit mode.
    """
    for statement in (
        OVER_LIMIT,
        PRUNE_BLOCKS,
        PRUNE_SEEN,
        DELETE_DEAD,
        PRUNE_KEYS,
        PRUNE_FLOWS,
        PRUNE_SESSIONS,
        PRUNE_ACTIVITY,
        PRUNE_CHANGES,
        PRUNE_LIMITS,
    ):
        conn.execute(statement)
    holds.prune(conn)


def prune_tasks(conn: Conn, retention_days: float, seconds: float) -> bool:
    """Delete the tasks of old runs, in portions.

    Args:
      conn: A connection in autocommit mode.
      retention_days: The age, in days since the end of its run, at which a task is old.
      seconds: The time after which to stop.

    Returns:
      True if no old task is left.
    """
    deadline = time.monotonic() + seconds
    while runs := conn.execute(RUNS_TO_PRUNE, (retention_days,)).fetchall():
        for (run,) in runs:
            while conn.execute(PRUNE_TASKS, (run,)).rowcount:
                if time.monotonic() >= deadline:
                    return False
            conn.execute(MARK_PRUNED, (run,))
            if time.monotonic() >= deadline:
                return False
    return True
