"""The end of a run: exactly once, after its last task, never before.

The check is a transaction of its own, after the one that closed a task. In the same transaction,
two siblings that close concurrently would each see the other as open, and the run would never end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from psycopg.rows import dict_row

from core.content import holds, seen
from core.db.pool import Conn
from core.ledger import hints
from core.states import AccountState, HeldState, Lane, RunState, TaskState, Trigger

# The condition that a run has no open task, and has taken over all tasks of earlier runs. The check
# runs without a lock first, because most batches end no run.
# Served by the partial indexes on ready and queued tasks. A lane of an account has at most one open
# run, so that run's open tasks are the open tasks of the lane.
# The order is that of the index. Without it, the planner would read the table from its start, past
# all done tasks. It is backwards because claims leave dead entries at the front of the index.
OPEN_TASKS = f"""
r.carry_until IS NULL
AND (SELECT t.id FROM sync_task t
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
# begins with the run. A source may cause any number of reasons; a run keeps the most frequent.
MAX_SKIP_REASONS = 100
SKIPPED = f"""
(SELECT jsonb_object_agg(reason, number) FROM (
    SELECT CASE WHEN place < {MAX_SKIP_REASONS} THEN reason ELSE 'other reasons' END AS reason,
        sum(number) AS number
    FROM (
        SELECT s.key AS reason, sum(s.value::bigint) AS number,
            row_number() OVER (ORDER BY sum(s.value::bigint) DESC, s.key) AS place
        FROM sync_task t, jsonb_each_text(t.skipped) s
        WHERE t.run_id = %(run)s AND t.skipped IS NOT NULL GROUP BY s.key) counted
    GROUP BY 1) reasons)
"""

# The tasks that a run counts. A task that was retried within its run does not count, because its
# copy does. A task that a later run retries still counts in its own run, which ended without it.
# Cancelled tasks are always copied into a later run. The primary key serves the search for a copy.
COUNTED = f"""
(t.retried_as IS NULL OR t.state = '{TaskState.CANCELLED}'
    OR (SELECT copy.run_id FROM sync_task copy WHERE copy.id = t.retried_as)
        IS DISTINCT FROM t.run_id)
"""

# The counts of a run, while it is open and at its end. Served by the unique index of tasks that
# begins with the run.
COUNTS = f"""
count(*) FILTER (WHERE t.state = '{TaskState.DONE}') AS tasks_done,
count(*) FILTER (WHERE t.state = '{TaskState.PARKED}') AS tasks_parked,
count(*) FILTER (WHERE t.state = '{TaskState.DEFERRED}') AS tasks_deferred,
coalesce(sum(t.outputs_saved), 0)::bigint AS outputs_saved,
coalesce(sum(t.outputs_unchanged), 0)::bigint AS outputs_unchanged,
coalesce(sum(t.outputs_deleted), 0)::bigint AS outputs_deleted
"""
TASKS_OF_RUN = f"sync_task t WHERE t.run_id = %(run)s AND {COUNTED}"

# The deletions of a run that wait for a person. The index of held deletions by run serves it.
DELETIONS_HELD = f"""
(SELECT coalesce(sum(h.vanished), 0)::bigint FROM held_deletion h
    WHERE h.run_id = %(run)s AND h.state = '{HeldState.HELD}')
"""

# The end of a run records its counts, also if a person cancels it.
RECORD_COUNTS = f"""
finished_at = clock_timestamp(), tasks_done = c.tasks_done, tasks_parked = c.tasks_parked,
tasks_deferred = c.tasks_deferred, outputs_saved = c.outputs_saved,
outputs_unchanged = c.outputs_unchanged, outputs_deleted = c.outputs_deleted, skipped = {SKIPPED},
deletions_held = {DELETIONS_HELD}
"""

# Ends a run whose last task has ended. `CANCEL_RUN` ends a run before that.
END_RUN = f"""
UPDATE sync_run r SET
    state = CASE WHEN c.tasks_parked + c.tasks_deferred = 0 THEN '{RunState.SUCCEEDED}'
        WHEN c.root_parked THEN '{RunState.FAILED}' ELSE '{RunState.PARTIAL}' END,
    {RECORD_COUNTS},
    error = c.error
FROM (
    SELECT {COUNTS},
           coalesce(bool_or(t.state = '{TaskState.PARKED}'
               AND t.parent_id IS NULL AND t.retry_of IS NULL), false) AS root_parked,
           coalesce(min(t.reason) FILTER (WHERE t.state = '{TaskState.PARKED}'),
               min(t.reason) FILTER (WHERE t.state = '{TaskState.DEFERRED}')) AS error
    FROM {TASKS_OF_RUN}
) c
WHERE r.id = %(run)s AND r.state = '{RunState.RUNNING}' AND {OPEN_TASKS}
RETURNING r.*
"""

# Schedules the account's next run. A resync that became due during the run starts immediately, and
# so does a run that confirms deletions which a person accepted during the run. A run that retries
# tasks, or that hints made, does not move the next poll. A poll that became due during the run
# starts immediately, unless the run itself was that poll. A next poll that was set during the run
# stays: it differs from the one that the run has recorded. The jitter spreads accounts that were
# connected together.
RESCHEDULE = f"""
UPDATE user_integration SET
    last_sync_at = clock_timestamp(),
    next_sync_at = CASE WHEN resync_due OR EXISTS (SELECT FROM held_deletion h
            WHERE h.user_integration_id = %(account)s AND h.state = '{HeldState.ACCEPTED}'
              AND h.decided_at > %(began)s)
            THEN clock_timestamp()
        WHEN %(poll_due)s THEN clock_timestamp()
        WHEN %(trigger)s IN ('{Trigger.RETRY}', '{Trigger.HINT}') THEN next_sync_at
        WHEN next_sync_at <> %(next)s THEN next_sync_at
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
Run = Mapping[str, Any]


def end_runs(
    conn: Conn, runs: Iterable[str], later: Callable[[Run], None] | None = None
) -> list[Run]:
    """End the runs without open tasks. Returns the rows of the runs that this call ended.

    Args:
      conn: A connection in autocommit mode.
      runs: The ids of the runs.
      later: A function to which a run is given whose `settle` takes longer than one portion.
        Default: settle all runs in this call.
    """
    named = sorted(runs)
    if not named:
        return []
    ids = [run for (run,) in conn.execute(RUNS_TO_END, (named,)).fetchall()]
    return _end_all(conn, ids, later)


def end_forgotten_runs(conn: Conn, later: Callable[[Run], None] | None = None) -> list[Run]:
    """End all runs without open tasks.

    This covers a process that died after it closed the last task and before it called `end_runs`.

    Args:
      conn: A connection in autocommit mode.
      later: As in `end_runs`.
    """
    return _end_all(conn, [run for (run,) in conn.execute(FORGOTTEN_RUNS).fetchall()], later)


def settle(conn: Conn, run: Run) -> None:
    """Tidy up after a run that has ended, in portions.

    If this is interrupted, later runs settle the held deletions, and the leader deletes the rest.
    """
    holds.settle(conn, run)
    for _ in seen.delete_seen(conn, run["id"]):
        pass


def _end_all(conn: Conn, runs: Iterable[str], later: Callable[[Run], None] | None) -> list[Run]:
    all_ended = []
    for run in runs:
        ended = _end(conn, run)
        if ended is not None:
            all_ended.append(ended)
            _settle_or_later(conn, ended, later)
    return all_ended


def _settle_or_later(conn: Conn, run: Run, later: Callable[[Run], None] | None) -> None:
    if later is None:
        settle(conn, run)
    elif holds.are_large(conn, run["user_integration_id"]):
        later(run)
    else:
        holds.settle(conn, run)
        portions = seen.delete_seen(conn, run["id"])
        next(portions)
        if next(portions, None) is not None:
            later(run)


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
                    "next": ended["next_sync_at"],
                    "poll_due": ended["poll_due"],
                    "account": ended["user_integration_id"],
                },
            )
        else:
            conn.execute(BACKFILL_ENDED, (ended["user_integration_id"],))
        holds.hold_again(conn, ended)
        if ended["lane"] == Lane.LIVE:
            hints.run_ended(conn, ended)
    return ended
