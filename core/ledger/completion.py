"""The end of a run: exactly once, after its last task, never before.

The check is a transaction of its own, after the one that closed a task. In the same transaction,
two siblings that close concurrently would each see the other as open, and the run would never end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from core.content import holds, seen
from core.db.clocks import TODAY
from core.db.pool import Conn
from core.ledger import hints
from core.results.result import MAX_SKIP_REASONS
from core.states import AccountState, HeldState, Lane, RunState, TaskState, Trigger

MAX_RUNS_PER_LOOK = 2_000
"""The number of open runs among which one call of `end_forgotten_runs` looks."""

# The condition that a run has no open task, and has taken over all tasks of earlier runs. The check
# runs without a lock first, because most batches end no run.
# Served by the partial indexes on ready and queued tasks. A lane of an account has at most one open
# run, so that run's open tasks are the open tasks of the lane.
# With `IS TRUE`, no index of runs serves it: that would read all done tasks of a run (ADR 0095).
# The order is that of the index. Without it, the planner would read the table from its start, past
# all done tasks. It is backwards because claims leave dead entries at the front of the index.
NO_OPEN_TASKS = f"""
r.carry_until IS NULL
AND (SELECT t.id FROM sync_task t
    WHERE t.state = '{TaskState.READY}' AND t.integration_domain = r.integration_domain
    AND t.user_integration_id = r.user_integration_id AND t.lane = r.lane
    AND (t.run_id = r.id) IS TRUE
    ORDER BY t.priority, t.id DESC LIMIT 1) IS NULL
AND (SELECT t.id FROM sync_task t
    WHERE t.state = '{TaskState.QUEUED}' AND t.integration_domain = r.integration_domain
    AND t.user_integration_id = r.user_integration_id AND t.lane = r.lane
    AND (t.run_id = r.id) IS TRUE
    LIMIT 1) IS NULL
"""

# The open runs among some candidates. `OFFSET 0` keeps the condition on the state out of the
# search, so that only the primary key serves it. Otherwise, with statistics of a moment without
# open runs, the planner would read an index of all open runs for each candidate (ADR 0095).
OPEN_CANDIDATES = f"""
(SELECT r.* FROM unnest(%(runs)s::uuid[]) AS candidate (id) CROSS JOIN LATERAL (
    SELECT * FROM sync_run WHERE id = candidate.id OFFSET 0
) r WHERE r.state = '{RunState.RUNNING}') r
"""

RUNS_TO_END = f"SELECT r.id::text FROM {OPEN_CANDIDATES} WHERE {NO_OPEN_TASKS} ORDER BY r.id"
# A slice of the open runs, and those among them without open tasks. `sync_run_open` serves it. The
# cost is bounded, however many runs are open.
FORGOTTEN_RUNS = f"""
WITH slice AS MATERIALIZED (
    SELECT * FROM sync_run WHERE state = '{RunState.RUNNING}'
        AND (user_integration_id, lane) > (%s::uuid, %s::text)
    ORDER BY user_integration_id, lane LIMIT {MAX_RUNS_PER_LOOK}
)
SELECT r.id::text, r.user_integration_id, r.lane, {NO_OPEN_TASKS} FROM slice r
ORDER BY r.user_integration_id, r.lane
"""

# Every transaction locks accounts before their runs, each sorted by id.
LOCK_ACCOUNTS_OF_RUNS = """
SELECT a.id FROM user_integration a
WHERE a.id IN (SELECT r.user_integration_id FROM sync_run r WHERE r.id = ANY(%s::uuid[]))
ORDER BY a.id FOR NO KEY UPDATE
"""
LOCK_RUNS_TO_END = "SELECT id FROM sync_run WHERE id = ANY(%s::uuid[]) ORDER BY id FOR UPDATE"

# The items that the tasks of the run `r` skipped, by reason. Served by the unique index of tasks
# that begins with the run. A source may cause any number of reasons; a run keeps the most frequent.
SKIPPED = f"""
(SELECT jsonb_object_agg(reason, number) FROM (
    SELECT CASE WHEN place < {MAX_SKIP_REASONS} THEN reason ELSE 'other reasons' END AS reason,
        sum(number) AS number
    FROM (
        SELECT s.key AS reason, sum(s.value::bigint) AS number,
            row_number() OVER (ORDER BY sum(s.value::bigint) DESC, s.key) AS place
        FROM sync_task t, jsonb_each_text(t.skipped) s
        WHERE t.run_id = r.id AND t.skipped IS NOT NULL GROUP BY s.key) counted
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

# The deletions of the run `r` that wait for a person. The index of held deletions by run serves it.
DELETIONS_HELD = f"""
(SELECT coalesce(sum(h.vanished), 0)::bigint FROM held_deletion h
    WHERE h.run_id = r.id AND h.state = '{HeldState.HELD}')
"""

# The end of a run records its counts, also if a person cancels it.
RECORD_COUNTS = f"""
finished_at = clock_timestamp(), tasks_done = c.tasks_done, tasks_parked = c.tasks_parked,
tasks_deferred = c.tasks_deferred, outputs_saved = c.outputs_saved,
outputs_unchanged = c.outputs_unchanged, outputs_deleted = c.outputs_deleted, skipped = {SKIPPED},
deletions_held = {DELETIONS_HELD}
"""

MAX_FOLDED_TASKS = 100
"""A run with more tasks is not folded, so that the end of a run stays short."""

# True for a poll that found nothing: nobody asked for it, and nobody would miss it. Each of its
# tasks is one that it found itself, done, and without a remark.
FOUND_NOTHING = f"""
(r.lane = '{Lane.LIVE}' AND r.trigger IN ('{Trigger.SCHEDULE}', '{Trigger.HINT}')
    AND NOT r.joined AND NOT r.complete AND r.over_limit IS NULL
    AND c.tasks_done = c.known AND c.tasks_done BETWEEN 1 AND {MAX_FOLDED_TASKS}
    AND c.followups = c.tasks_done - 1 AND c.outputs_saved = 0 AND c.outputs_deleted = 0
    AND NOT c.remarkable
    AND NOT EXISTS (SELECT FROM held_deletion h WHERE h.run_id = r.id))
"""
# The runs whose last task has ended, with their counts.
JUDGED = f"""
SELECT r.id, r.user_integration_id, r.lane, r.trigger, r.started_at, r.next_sync_at, r.poll_due,
    c.*,
    CASE WHEN c.tasks_parked + c.tasks_deferred = 0 THEN '{RunState.SUCCEEDED}'
        WHEN c.root_parked THEN '{RunState.FAILED}' ELSE '{RunState.PARTIAL}' END AS state,
    {FOUND_NOTHING} AS folds
FROM {OPEN_CANDIDATES} CROSS JOIN LATERAL (
    SELECT {COUNTS}, count(*) AS known, coalesce(sum(t.followups), 0) AS followups,
           bool_or(t.skipped IS NOT NULL OR t.reason IS NOT NULL OR t.retry_of IS NOT NULL
               OR t.carried) AS remarkable,
           coalesce(bool_or(t.state = '{TaskState.PARKED}'
               AND t.parent_id IS NULL AND t.retry_of IS NULL), false) AS root_parked,
           coalesce(min(t.reason) FILTER (WHERE t.state = '{TaskState.PARKED}'),
               min(t.reason) FILTER (WHERE t.state = '{TaskState.DEFERRED}')) AS error
    FROM sync_task t WHERE t.run_id = r.id AND {COUNTED}
) c
WHERE {NO_OPEN_TASKS}
"""
# `CANCEL_RUN` ends a run before its last task.
KEEP = f"""
UPDATE sync_run r SET state = c.state, {RECORD_COUNTS}, error = c.error
FROM judged c WHERE r.id = c.id AND NOT c.folds RETURNING r.*
"""
FOLD = "DELETE FROM sync_run r USING judged c WHERE r.id = c.id AND c.folds RETURNING r.*"
# With an array, the plan is a search for each run, also if vacuum last found no task (ADR 0095).
FOLD_TASKS = """
DELETE FROM sync_task WHERE run_id = ANY (ARRAY(SELECT c.id FROM judged c WHERE c.folds))
"""

# The figures of the day. Polls that found nothing are counted in the row of the account, which
# changes anyway. The first one of a later day moves the number here.
COUNT_RUNS = f"""
INSERT INTO account_day AS d (user_integration_id, day, runs, empty_runs, failed_runs,
    outputs_saved, outputs_deleted)
SELECT account, day, sum(runs), sum(empty_runs), sum(failed_runs), sum(saved), sum(deleted) FROM (
    SELECT c.user_integration_id AS account, {TODAY} AS day, 1 AS runs, 0 AS empty_runs,
        (c.state = '{RunState.FAILED}')::int AS failed_runs, c.outputs_saved AS saved,
        c.outputs_deleted AS deleted
    FROM judged c WHERE NOT c.folds
    UNION ALL
    SELECT a.id, a.empty_day, a.empty_runs, a.empty_runs, 0, 0, 0
    FROM judged c JOIN user_integration a ON a.id = c.user_integration_id
    WHERE c.folds AND a.empty_runs > 0 AND a.empty_day <> {TODAY}
        AND a.sync_status <> '{AccountState.DISCONNECTED}'
) counted GROUP BY account, day ORDER BY account, day
ON CONFLICT (user_integration_id, day) DO UPDATE SET runs = d.runs + excluded.runs,
    empty_runs = d.empty_runs + excluded.empty_runs,
    failed_runs = d.failed_runs + excluded.failed_runs,
    outputs_saved = d.outputs_saved + excluded.outputs_saved,
    outputs_deleted = d.outputs_deleted + excluded.outputs_deleted
"""
_INTERVAL = "a.poll_interval_minutes * interval '1 minute'"
# Schedules the account's next run. A resync that became due during the run starts immediately, and
# so does a run that confirms deletions which a person accepted during the run. A run that retries
# tasks, or that hints made, does not move the next poll. A poll that became due during the run
# starts immediately, unless the run itself was that poll. A next poll that was set during the run
# stays: it differs from the one that the run has recorded. The jitter spreads accounts that were
# connected together.
# The claim has already set a next poll. It stays if it is one interval after now, but for the
# jitter, as after most runs. The statement then changes no indexed column, and no index (ADR 0091).
RESCHEDULE = f"""
UPDATE user_integration a SET
    last_sync_at = clock_timestamp(),
    next_sync_at = CASE WHEN a.resync_due OR EXISTS (SELECT FROM held_deletion h
            WHERE h.user_integration_id = a.id AND h.state = '{HeldState.ACCEPTED}'
              AND h.decided_at > c.started_at)
            THEN clock_timestamp()
        WHEN c.poll_due THEN clock_timestamp()
        WHEN c.trigger IN ('{Trigger.RETRY}', '{Trigger.HINT}') THEN a.next_sync_at
        WHEN a.next_sync_at <> c.next_sync_at THEN a.next_sync_at
        WHEN a.next_sync_at BETWEEN clock_timestamp() + {_INTERVAL} * 0.95
            AND clock_timestamp() + {_INTERVAL} * 1.05 THEN a.next_sync_at
        ELSE clock_timestamp() + {_INTERVAL} * (0.95 + 0.1 * random()) END,
    consecutive_failures = CASE WHEN c.state = '{RunState.FAILED}'
        THEN a.consecutive_failures + 1 ELSE 0 END,
    listing_began_at = CASE WHEN c.state <> '{RunState.FAILED}'
            AND c.trigger <> '{Trigger.RETRY}' AND c.tasks_done > 0
        THEN c.started_at ELSE a.listing_began_at END,
    empty_day = CASE WHEN c.folds THEN {TODAY} ELSE a.empty_day END,
    empty_runs = CASE WHEN NOT c.folds THEN a.empty_runs
        WHEN a.empty_day = {TODAY} THEN a.empty_runs + 1 ELSE 1 END
FROM judged c WHERE a.id = c.user_integration_id AND c.lane = '{Lane.LIVE}'
    AND a.sync_status <> '{AccountState.DISCONNECTED}'
"""
# Ends runs. The columns at the end replace those of a deleted row, which has the values of an open
# run. Most runs have no seen items, and most accounts have neither held deletions nor hints.
END_RUNS = f"""
WITH judged AS MATERIALIZED ({JUDGED}), kept AS ({KEEP}), folded AS ({FOLD}),
forgotten AS ({FOLD_TASKS}), counted AS ({COUNT_RUNS}), rescheduled AS ({RESCHEDULE}),
ended AS (SELECT * FROM kept UNION ALL SELECT * FROM folded)
SELECT ended.*, c.state, c.tasks_done, c.outputs_unchanged,
    coalesce(ended.finished_at, clock_timestamp()) AS finished_at,
    EXISTS (SELECT FROM sync_seen s WHERE s.run_id = ended.id) AS has_seen,
    {holds.HAS_DECIDABLE} AS has_held,
    EXISTS (SELECT FROM hint h WHERE h.user_integration_id = ended.user_integration_id) AS has_hints
FROM ended CROSS JOIN LATERAL (SELECT * FROM judged j WHERE j.id = ended.id) c ORDER BY ended.id
"""
# A resync that is due starts after a backfill run, too.
BACKFILLS_ENDED = f"""
UPDATE user_integration SET next_sync_at = clock_timestamp()
WHERE id = ANY(%s) AND resync_due AND sync_status <> '{AccountState.DISCONNECTED}'
"""

MAX_RUNS_PER_TRANSACTION = 100
"""The number of runs that one transaction ends."""

Run = Mapping[str, Any]
RunPosition = tuple[UUID, str]
"""The account and the lane of an open run."""

FIRST_RUN: RunPosition = (UUID(int=0), "")
"""The position before the first open run."""


def end_runs(
    conn: Conn, runs: Iterable[str], later: Callable[[Run], None] | None = None
) -> list[Run]:
    """End the runs without open tasks. Returns the rows of the runs that this call ended.

    If `opened_next` of a row is true, the end of the run has opened another one, for hints.

    Args:
      conn: A connection in autocommit mode.
      runs: The ids of the runs.
      later: A function to which a run is given whose `settle` takes longer than one portion.
        Default: settle all runs in this call.
    """
    named = sorted(runs)
    if not named:
        return []
    ids = [run for (run,) in conn.execute(RUNS_TO_END, {"runs": named}).fetchall()]
    return _end_all(conn, ids, later)


def end_forgotten_runs(
    conn: Conn, later: Callable[[Run], None] | None = None, after: RunPosition = FIRST_RUN
) -> tuple[list[Run], RunPosition]:
    """End the runs without open tasks in a slice of the open runs.

    This covers a process that died after it closed the last task and before it called `end_runs`.

    Args:
      conn: A connection in autocommit mode.
      later: As in `end_runs`.
      after: The end of the slice before. Default: the first slice.

    Returns:
      The rows of the runs that this call ended, and the end of the slice: `FIRST_RUN` after the
      last one.
    """
    rows = conn.execute(FORGOTTEN_RUNS, after).fetchall()
    ended = _end_all(conn, [run for run, _, _, is_complete in rows if is_complete], later)
    is_last = len(rows) < MAX_RUNS_PER_LOOK
    return ended, FIRST_RUN if is_last else (rows[-1][1], rows[-1][2])


def settle(conn: Conn, run: Run) -> None:
    """Tidy up after a run that has ended, in portions.

    If this is interrupted, later runs settle the held deletions, and the leader deletes the rest.
    """
    holds.settle(conn, run)
    for _ in seen.delete_seen(conn, run["id"]):
        pass


def _end_all(conn: Conn, runs: Sequence[str], later: Callable[[Run], None] | None) -> list[Run]:
    all_ended: list[Run] = []
    for number in range(0, len(runs), MAX_RUNS_PER_TRANSACTION):
        ended, unsettled = _end(conn, runs[number : number + MAX_RUNS_PER_TRANSACTION])
        all_ended += ended
        for run in unsettled:
            _settle_or_later(conn, run, later)
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


def _end(conn: Conn, candidates: Sequence[str]) -> tuple[list[Run], list[Run]]:
    """End the runs without open tasks in one transaction.

    Locks the accounts, then the runs, each sorted by id. The statement that ends runs begins after
    that, so it sees the tasks of each transaction that shared a run.

    Returns:
      The ended runs, and the ones among them that are not settled yet.
    """
    with conn.transaction():
        conn.execute(LOCK_ACCOUNTS_OF_RUNS, (candidates,))
        conn.execute(LOCK_RUNS_TO_END, (candidates,))
        with conn.cursor(row_factory=dict_row) as cursor:
            ended = cursor.execute(END_RUNS, {"runs": candidates}).fetchall()
        hinted = {run["id"] for run in ended if run.pop("has_hints")}
        held = {run["id"] for run in ended if run.pop("has_held")}
        listed = [run["id"] for run in ended if run.pop("has_seen")]
        backfills = [run["user_integration_id"] for run in ended if run["lane"] == Lane.BACKFILL]
        if backfills:
            conn.execute(BACKFILLS_ENDED, (backfills,))
        for run in ended:
            holds.hold_again(conn, run)
            if run["lane"] == Lane.LIVE and run["id"] in hinted:
                run["opened_next"] = hints.run_ended(conn, run)
        # The settlement of held deletions reads the seen items.
        unsettled = held | set(seen.delete_some(conn, [run for run in listed if run not in held]))
    return list(ended), [run for run in ended if run["id"] in unsettled]
