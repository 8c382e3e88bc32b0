"""The fence: the check that a result still belongs to its task's current dispatch.

It is the first step of the saving transaction, and locks the tasks of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from core.db.pool import Conn
from core.ledger.outcomes import Outcome, parked
from core.results.parking import Cause
from core.states import Deletions, Lane, TaskState, Trigger

# THE FENCE. Locks, by id, exactly the named tasks that are still queued with this dispatch_no and
# token. A message of a version without tokens has none; its result is compared by number alone.
# Served by the primary key. The form of the condition keeps the planner from `sync_task_queued`,
# which is small only while vacuum can remove dead entries. The array keeps the plan a probe for
# each id, also if vacuum last found no task (ADR 0095).
FENCE = f"""
SELECT t.id, t.dispatch_no, named.token, (SELECT epoch FROM engine_state),
    r.start_seq, r.started_at,
    t.carried OR (r.trigger = '{Trigger.HINT}' AND r.lane = '{Lane.LIVE}'),
    a.deletions = '{Deletions.KEEP}', r.over_limit, EXISTS (
        SELECT FROM breaker b WHERE b.user_integration_id = t.user_integration_id)
FROM sync_task t
JOIN unnest(%(tasks)s::bigint[], %(numbers)s::int[], %(tokens)s::bigint[])
    AS named(id, dispatch_no, token) ON named.id = t.id AND t.id = ANY (%(tasks)s::bigint[])
JOIN sync_run r ON r.id = t.run_id
JOIN user_integration a ON a.id = t.user_integration_id
WHERE CASE t.state WHEN '{TaskState.QUEUED}' THEN t.dispatch_no END = named.dispatch_no
    AND (named.token IS NULL OR named.token = t.token)
ORDER BY t.id FOR UPDATE OF t
"""


@dataclass(frozen=True, slots=True)
class FencedRun:
    """The run of a task that passed the fence.

    Attributes:
      start_seq: The sequence number of the latest dispatch before the run began.
      began: The time at which the run began.
      carried: True if the task is a copy of a task of an earlier run, or descends from one. Such a
        task never sweeps, and neither does a run that hints made.
      keeps: True if the account keeps items that are gone at the source.
    """

    start_seq: int
    began: datetime
    carried: bool
    keeps: bool


def pass_fence(
    conn: Conn, outcomes: Sequence[Outcome]
) -> tuple[list[Outcome], dict[int, FencedRun], set[str]]:
    """Lock the tasks of these outcomes, and drop each outcome whose dispatch is no longer current.

    Returns:
      The outcomes that passed, at most one per task, in the order of their dispatch; the run of
      each task; and the accounts that have breakers. An outcome that adds tasks to a run over its
      limit is replaced: its task is parked.
    """
    named = {each.dispatch.lease: each for each in outcomes}
    tasks, numbers, tokens = map(array, zip(*named, strict=True))
    passed, runs, watched = [], {}, set()
    for row in conn.execute(FENCE, {"tasks": tasks, "numbers": numbers, "tokens": tokens}):
        task, number, token, epoch, start_seq, began, carried, keeps, over_limit, has_breakers = row
        outcome = named[task, number, token]
        if outcome.dispatch.epoch != epoch or task in runs:
            continue
        runs[task] = FencedRun(start_seq, began, carried, keeps)
        if over_limit and outcome.tasks:
            outcome = parked(outcome, over_limit, Cause.RUN_LIMIT)
        if has_breakers:
            watched.add(outcome.dispatch.account_id)
        passed.append(outcome)
    return sorted(passed, key=lambda outcome: outcome.dispatch.dispatch_seq), runs, watched


def array(numbers: Iterable[int | None]) -> str:
    """Return an array literal of PostgreSQL; psycopg would adapt element by element."""
    return "{" + ",".join("NULL" if n is None else str(n) for n in numbers) + "}"
