"""The end of a run: exactly once, after its last task, never before.

The check is a transaction of its own, after the one that closed a task. In the same transaction,
two siblings that close concurrently would each see the other as open, and the run would never end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from psycopg.rows import dict_row

from core.content import holds
from core.db.pool import Conn
from core.states import AccountState, HeldState, Lane, RunState, TaskState, Trigger

# The condition that a run has no open task. The check runs without a lock first, because most
# batches end no run.
# Served by the partial indexes on ready and queued tasks. A lane of an account has at most one open
# run, so that run's open tasks are the open tasks of the lane.
# The order is that of the index. Without it, the planner would read the table from its start, past
# all done tasks. It is backwards because claims leave dead entries at the front of the index.
OPEN_TASKS = f"""
(SELECT t.id FROM sync_task t
    WHERE t.state = '{TaskState.READY}' AND t.integration_domain = r.integration_domain
    AND t.user_integration_id = r.user_integration_id AND t.lane = r.lane AND t.run_id = r.id
    ORDER BY t.priority, t.id DESC LIMIT 1) IS NULL
AND (SELECT t.id FROM sync_task t
    WHERE t.state = '{TaskState.QUEUED}' AND t.integration_domain = r.integration_domain
    AND t.user_integration_id = r.user_integration_id AND t.lane = r.lane AND t.run_id = r.id
    LIMIT 1) IS NULL
"""

RUNS_TO_END = f"""
SELECT r.id::text FROM sync_run r WHERE r.id = ANY(%s::uuid[]) AND r.state = '{RunState.RUNNING}'
    AND {OPEN_TASKS} ORDER BY r.id
"""
FORGOTTEN_RUNS = f"""
SELECT r.id::text FROM sync_run r WHERE r.state = '{RunState.RUNNING}' AND {OPEN_TASKS}
ORDER BY r.id LIMIT 1000
"""

# Every transaction locks the account before its run.
LOCK_ACCOUNT_OF_RUN = """
SELECT a.id FROM user_integration a JOIN sync_run r ON r.user_integration_id = a.id
WHERE r.id = %s FOR NO KEY UPDATE OF a
"""
LOCK_RUN_TO_END = "SELECT id FROM sync_run WHERE id = %s FOR UPDATE"

# The items that the tasks of a run skipped, by reason. Served by the unique index of tasks that
# begins with the run.
SKIPPED = """
(SELECT jsonb_object_agg(reason, number) FROM (
    SELECT s.key AS reason, sum(s.value::bigint) AS number
    FROM sync_task t, jsonb_each_text(t.skipped) s
    WHERE t.run_id = %(run)s AND t.skipped IS NOT NULL GROUP BY s.key) reasons)
"""

# THE STATEMENT THAT ENDS A RUN.
END_RUN = f"""
UPDATE sync_run r SET
    state = CASE WHEN c.parked + c.deferred = 0 THEN '{RunState.SUCCEEDED}'
        WHEN c.root_parked THEN '{RunState.FAILED}' ELSE '{RunState.PARTIAL}' END,
    finished_at = clock_timestamp(), tasks_done = c.done, tasks_parked = c.parked,
    tasks_deferred = c.deferred,
    outputs_saved = c.saved, outputs_unchanged = c.unchanged, outputs_deleted = c.deleted,
    skipped = {SKIPPED},
    error = c.error,
    deletions_held = (SELECT coalesce(sum(h.vanished), 0) FROM held_deletion h
        WHERE h.run_id = r.id AND h.state = '{HeldState.HELD}')
FROM (
    SELECT count(*) FILTER (WHERE state = '{TaskState.DONE}') AS done,
           count(*) FILTER (WHERE state = '{TaskState.PARKED}' AND retried_as IS NULL) AS parked,
           count(*) FILTER (
               WHERE state = '{TaskState.DEFERRED}' AND retried_as IS NULL) AS deferred,
           coalesce(bool_or(state = '{TaskState.PARKED}' AND retried_as IS NULL
               AND parent_id IS NULL AND retry_of IS NULL), false) AS root_parked,
           coalesce(sum(outputs_saved), 0) AS saved,
           coalesce(sum(outputs_unchanged), 0) AS unchanged,
           coalesce(sum(outputs_deleted), 0) AS deleted,
           coalesce(min(reason) FILTER (WHERE state = '{TaskState.PARKED}'),
               min(reason) FILTER (WHERE state = '{TaskState.DEFERRED}')) AS error
    FROM sync_task WHERE run_id = %(run)s
) c
WHERE r.id = %(run)s AND r.state = '{RunState.RUNNING}' AND {OPEN_TASKS}
RETURNING r.*
"""

# Schedules the account's next run. A resync that became due during the run starts immediately, and
# so does a run that confirms deletions which a person accepted during the run. A run that retries
# tasks does not move the next poll. The jitter spreads accounts that were connected together.
RESCHEDULE = f"""
UPDATE user_integration SET
    last_sync_at = clock_timestamp(),
    next_sync_at = CASE WHEN resync_due OR EXISTS (SELECT FROM held_deletion h
            WHERE h.user_integration_id = %(account)s AND h.state = '{HeldState.ACCEPTED}'
              AND h.decided_at > %(began)s)
            THEN clock_timestamp()
        WHEN %(trigger)s = '{Trigger.RETRY}' THEN next_sync_at
        ELSE clock_timestamp() + poll_interval_minutes * interval '1 minute'
            * (0.95 + 0.1 * random()) END,
    consecutive_failures = CASE WHEN %(state)s = '{RunState.FAILED}'
        THEN consecutive_failures + 1 ELSE 0 END
WHERE id = %(account)s AND sync_status <> '{AccountState.DISCONNECTED}'
"""
BACKFILL_ENDED = f"""
UPDATE user_integration SET next_sync_at = clock_timestamp()
WHERE id = %s AND resync_due AND sync_status <> '{AccountState.DISCONNECTED}'
"""
SEEN_ROWS = 20_000
"""The maximum number of rows that one statement deletes. Each is a transaction."""
DELETE_SEEN = f"""
DELETE FROM sync_seen WHERE run_id = %(run)s AND external_id = ANY (ARRAY(
    SELECT external_id FROM sync_seen WHERE run_id = %(run)s LIMIT {SEEN_ROWS}))
"""

Run = Mapping[str, Any]


def end_runs(conn: Conn, runs: Iterable[str]) -> list[Run]:
    """End the runs without open tasks. Returns the rows of the runs that this call ended."""
    named = sorted(runs)
    if not named:
        return []
    return [
        ended
        for (run,) in conn.execute(RUNS_TO_END, (named,)).fetchall()
        if (ended := _end(conn, run))
    ]


def end_forgotten_runs(conn: Conn) -> list[Run]:
    """End all runs without open tasks.

    This covers a process that died after it closed the last task and before it called `end_runs`.
    """
    return [
        ended for (run,) in conn.execute(FORGOTTEN_RUNS).fetchall() if (ended := _end(conn, run))
    ]


def _end(conn: Conn, run: str) -> Run | None:
    with conn.transaction():
        conn.execute(LOCK_ACCOUNT_OF_RUN, (run,))
        conn.execute(LOCK_RUN_TO_END, (run,))
        with conn.cursor(row_factory=dict_row) as cursor:
            ended = cursor.execute(END_RUN, {"run": run}).fetchone()
        if ended is None:
            return None
        if ended["lane"] == Lane.LIVE:
            conn.execute(
                RESCHEDULE,
                {
                    "state": ended["state"],
                    "trigger": ended["trigger"],
                    "began": ended["started_at"],
                    "account": ended["user_integration_id"],
                },
            )
        else:
            conn.execute(BACKFILL_ENDED, (ended["user_integration_id"],))
    holds.settle(conn, ended["user_integration_id"], ended)
    while conn.execute(DELETE_SEEN, {"run": run}).rowcount >= SEEN_ROWS:
        pass
    return ended
