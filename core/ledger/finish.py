"""The last step of the saving transaction: the new state and the counters of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.db.pool import Conn
from core.ledger.fence import array
from core.ledger.outcomes import Outcome
from core.results.text import json_text
from core.states import TaskState

MAX_ERRORS = 20
"""The number of latest errors that a task's row keeps."""

# The fence has locked the rows. A task that is snoozed does not fail: the wait, such as for a key,
# moves the time of its first failure, from which `POLLING_GIVE_UP_AFTER_DAYS` counts. The array
# keeps the plan a probe for each id (ADR 0095).
FINISH = f"""
UPDATE sync_task t SET
    state = f.state,
    available_at = CASE WHEN f.delay > 0 THEN clock_timestamp() + f.delay * interval '1 second'
        ELSE t.available_at END,
    attempts = t.attempts + f.attempt, crashes = t.crashes + f.crash,
    snoozes = t.snoozes + f.snooze,
    snoozed_seconds = t.snoozed_seconds + CASE WHEN f.snooze > 0 THEN f.delay ELSE 0 END,
    first_failed_at = CASE WHEN f.attempt > 0 THEN coalesce(t.first_failed_at, clock_timestamp())
        WHEN f.snooze > 0 THEN t.first_failed_at + f.delay * interval '1 second'
        ELSE t.first_failed_at END,
    deferrals = t.deferrals + (f.state = '{TaskState.DEFERRED}')::int,
    suspect = f.suspect, lease_until = NULL, reason = f.reason,
    errors = CASE WHEN f.error IS NULL THEN t.errors ELSE (
        SELECT jsonb_agg(e ORDER BY n) FROM (
            SELECT e, n FROM jsonb_array_elements(
                coalesce(t.errors, '[]') || jsonb_build_object(
                    'at', clock_timestamp(), 'attempt', t.attempts + f.attempt, 'error', f.error)
            ) WITH ORDINALITY AS x(e, n)
            ORDER BY n DESC LIMIT {MAX_ERRORS}
        ) latest) END,
    outputs_saved = f.saved, outputs_unchanged = f.unchanged, outputs_deleted = f.deleted,
    outputs_gone = f.gone, skipped = f.skipped, followups = f.followups,
    finished_at = CASE WHEN f.state = '{TaskState.READY}' THEN NULL ELSE clock_timestamp() END
FROM json_to_recordset(%(rows)s::json) AS f(
    id bigint, state text, delay float, attempt int, crash int, snooze int, suspect bool,
    reason text, error text, saved int, unchanged int, deleted int, gone int, skipped jsonb,
    followups int)
WHERE t.id = f.id AND t.id = ANY (%(tasks)s::bigint[])
RETURNING t.id, t.state
"""


@dataclass(slots=True)
class TaskCounts:
    """Content rows and follow-ups of one task in this transaction."""

    saved: int = 0
    unchanged: int = 0
    deleted: int = 0
    gone: int = 0
    followups: int = 0


def finish(
    conn: Conn, outcomes: Sequence[Outcome], counts: Mapping[int, TaskCounts]
) -> dict[int, str]:
    """Write the next state of each task. Returns the states by task."""
    rows = [_row(outcome, counts[outcome.dispatch.task_id]) for outcome in outcomes]
    tasks = array(row["id"] for row in rows)
    return dict(conn.execute(FINISH, {"rows": json_text(rows), "tasks": tasks}).fetchall())


def _row(outcome: Outcome, counts: TaskCounts) -> dict[str, Any]:
    return {
        "id": outcome.dispatch.task_id,
        "state": outcome.state,
        "delay": outcome.delay,
        "attempt": outcome.attempt,
        "crash": outcome.crash,
        "snooze": outcome.snooze,
        "suspect": outcome.suspect,
        "reason": outcome.reason,
        "error": outcome.error,
        "saved": counts.saved,
        "unchanged": counts.unchanged + outcome.unchanged,
        "deleted": counts.deleted,
        "gone": counts.gone,
        "skipped": outcome.skipped or None,
        "followups": counts.followups,
    }
