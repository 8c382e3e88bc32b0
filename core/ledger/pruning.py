"""Deleting old rows, and limiting runs that grow without end. The leader runs this regularly."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from core.content import holds, removal, seen
from core.db import clocks
from core.db.pool import Conn
from core.ledger.breakers import PRUNE_LIMITS
from core.ledger.completion import FIRST_RUN, MAX_RUNS_PER_LOOK, RunPosition
from core.ledger.looks import PRUNE_CHANGES
from core.ledger.monotonic import OldEnough, any_age
from core.ledger.processes import DELETE_DEAD
from core.states import Lane, RunState, TaskState, Trigger

RUNS_PER_STATEMENT = 200
"""The number of runs that one statement deletes."""

TASKS_PER_STATEMENT = 5_000
"""The number of tasks that one statement deletes."""

BEGINNING = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))
"""The place before all runs."""

FIGURES_SECONDS = 400 * clocks.DAY
"""The age in seconds at which the daily figures of accounts and users are deleted."""

# A run with more tasks than its integration allows takes no more: a task that returns follow-ups
# parks with this reason. The statement judges a slice of the open runs, so that its cost does not
# grow with their number. `sync_run_open` serves it. The update names its runs in an array, and has
# no condition on the state. As a join, it compared each run of the slice with each open run
# (ADR 0095).
OVER_LIMIT = f"""
WITH slice AS MATERIALIZED (
    SELECT id, integration_domain, over_limit, started_at, user_integration_id, lane FROM sync_run
    WHERE state = '{RunState.RUNNING}' AND (user_integration_id, lane) > (%s::uuid, %s::text)
    ORDER BY user_integration_id, lane LIMIT {MAX_RUNS_PER_LOOK}
), large AS MATERIALIZED (
    SELECT s.id, i.max_tasks FROM slice s JOIN integration i ON i.domain = s.integration_domain
    WHERE s.over_limit IS NULL AND s.started_at < now() - interval '20 seconds'
      AND EXISTS (SELECT FROM sync_task t WHERE t.run_id = s.id OFFSET i.max_tasks LIMIT 1)
), marked AS (
    UPDATE sync_run r SET over_limit
        = (SELECT format('the run has more than %%s tasks; a task may be making ever new keys',
            max_tasks) FROM large WHERE large.id = r.id)
    WHERE r.id = ANY (ARRAY(SELECT id FROM large)) AND r.finished_at IS NULL
)
SELECT user_integration_id, lane FROM slice
ORDER BY user_integration_id DESC, lane DESC
"""

# The next runs whose tasks are not deleted, from the oldest one on. Served by `sync_run_unpruned`;
# `at` makes each statement pass over the runs that the ones before it have deleted.
RUNS_TO_PRUNE = """
SELECT finished_at, id FROM sync_run
WHERE NOT pruned AND finished_at < least(now() - %(days)s * interval '1 day', %(before)s)
  AND finished_at >= %(at)s
ORDER BY finished_at LIMIT %(most)s
"""
# The next runs that stay because of their tasks. Served by `sync_run_pruned`.
NEXT_PRUNED = """
SELECT finished_at, id FROM sync_run
WHERE pruned AND finished_at < least(now() - %(days)s * interval '1 day', %(before)s)
  AND (finished_at, id) > (%(at)s, %(id)s)
ORDER BY finished_at, id LIMIT %(most)s
"""
# The limits keep the plan a search for each run, in the unique index of tasks. A parked task stays
# unless it was retried.
PRUNE_TASKS = f"""
DELETE FROM sync_task WHERE id = ANY (ARRAY(
    SELECT t.id FROM unnest(%s::uuid[]) AS run (id) CROSS JOIN LATERAL (
        SELECT id FROM sync_task
        WHERE run_id = run.id AND (state = '{TaskState.DONE}' OR retried_as IS NOT NULL)
        LIMIT {TASKS_PER_STATEMENT}) t
    LIMIT {TASKS_PER_STATEMENT}))
"""
# A run stays as long as it has a parked or deferred task. The account keeps the time of its latest
# listing.
DELETE_RUNS = f"""
WITH gone AS (
    DELETE FROM sync_run r WHERE r.id = ANY(%s)
        AND (SELECT t.id FROM sync_task t WHERE t.run_id = r.id LIMIT 1) IS NULL
    RETURNING r.*
)
UPDATE user_integration a SET listing_began_at = latest.began
FROM (
    SELECT user_integration_id, max(started_at) AS began FROM gone
    WHERE lane = '{Lane.LIVE}' AND state IN ('{RunState.SUCCEEDED}', '{RunState.PARTIAL}')
      AND trigger <> '{Trigger.RETRY}' AND tasks_done > 0
    GROUP BY 1
) latest
WHERE a.id = latest.user_integration_id AND a.listing_began_at IS NULL
"""
PRUNE_DAYS = """
DELETE FROM account_day WHERE (user_integration_id, day) IN (
    SELECT user_integration_id, day FROM account_day
    WHERE day < least(now() - %s * interval '1 second', %s)::date ORDER BY day LIMIT 5000)
"""
PRUNE_USE = """
DELETE FROM user_day WHERE (user_id, day) IN (
    SELECT user_id, day FROM user_day
    WHERE day < least(now() - %s * interval '1 second', %s)::date ORDER BY day LIMIT 5000)
"""
# Rows that only count runs for a quota: nothing of the user has run, or the user was erased. It
# reads two days, with `user_day_day`.
PRUNE_UNUSED = """
WITH bound AS (SELECT least(now() - %s * interval '1 second', %s)::date AS day)
DELETE FROM user_day WHERE (user_id, day) IN (
    SELECT user_id, day FROM user_day
    WHERE day < (SELECT day FROM bound) AND day >= (SELECT day - 2 FROM bound)
      AND polls = 0 AND tasks = 0 AND thread_seconds = 0 LIMIT 5000)
"""
# The latest transaction that the change feed had passed at that age, and the time of that look.
# `monotonic_sample_watched` serves it. The samples cover the retention times.
REPORTED = """
SELECT horizon, at FROM monotonic_sample
WHERE at < least(now() - %s * interval '1 day', %s) AND horizon IS NOT NULL
ORDER BY watched DESC, id DESC LIMIT 1
"""
MARK_PRUNED = "UPDATE sync_run SET pruned = true WHERE id = ANY(%s)"
# The age in seconds, and the time before which a row is surely that old.
PRUNE_BLOCKS = """
DELETE FROM limit_block WHERE until < least(now() - %s * interval '1 second', %s)
"""
PRUNE_KEYS = """
DELETE FROM idempotency_key WHERE created_at < least(now() - %s * interval '1 second', %s)
"""
PRUNE_ACTIVITY = """
DELETE FROM throughput WHERE minute < least(now() - %s * interval '1 second', %s)
"""
PRUNE_FLOWS = """
DELETE FROM oauth_flow WHERE expires_at < least(now() - %s * interval '1 second', %s)
"""
PRUNE_SESSIONS = """
DELETE FROM session WHERE expires_at < least(now() - %s * interval '1 second', %s)
"""
PRUNED = (
    (PRUNE_BLOCKS, clocks.HOUR),
    (DELETE_DEAD, clocks.HOUR),
    (PRUNE_LIMITS, clocks.HOUR),
    (PRUNE_KEYS, clocks.age("idempotency_key.created_at")),
    (PRUNE_FLOWS, clocks.age("oauth_flow.expires_at")),
    (PRUNE_SESSIONS, clocks.age("session.expires_at")),
    (PRUNE_ACTIVITY, clocks.age("throughput.minute")),
    (PRUNE_CHANGES, clocks.age("control_change.changed_at")),
    (PRUNE_DAYS, FIGURES_SECONDS),
    (PRUNE_USE, FIGURES_SECONDS),
    (PRUNE_UNUSED, clocks.DAY),
)
"""Statements that delete old rows, and the age of these rows in seconds."""


def prune(conn: Conn, old_enough: OldEnough = any_age) -> None:
    """Delete expired rows.

    These are old limit blocks, dead processes, idempotency keys, OAuth flows, sessions, throughput,
    and changes of accounts. Further, these are the breakers of limits that no task will probe.

    Args:
      conn: A connection in autocommit mode.
      old_enough: Judges the age of rows. Default: by the database's clock alone.
    """
    for statement, seconds in PRUNED:
        if (before := old_enough(seconds)) is not None:
            conn.execute(statement, (seconds, before))


def mark_over_limit(conn: Conn, after: RunPosition = FIRST_RUN) -> RunPosition:
    """Mark the runs that are too large, in a slice of the open runs.

    Args:
      conn: A connection in autocommit mode.
      after: The end of the slice before. Default: the first slice.

    Returns:
      The end of the slice: `FIRST_RUN` after the last one.
    """
    rows = conn.execute(OVER_LIMIT, after).fetchall()
    return FIRST_RUN if len(rows) < MAX_RUNS_PER_LOOK else rows[0]


def prune_runs(
    conn: Conn, retention_days: float, seconds: float, old_enough: OldEnough = any_age
) -> bool:
    """Delete old runs and their tasks, in portions. Runs with parked or deferred tasks are marked.

    Args:
      conn: A connection in autocommit mode.
      retention_days: The age, in days since its end, at which a run is old.
      seconds: The time after which to stop.
      old_enough: Judges the age of runs. Default: by the database's clock alone.

    Returns:
      True if each old run is deleted or marked.
    """
    deadline = time.monotonic() + seconds
    if (before := old_enough(retention_days * clocks.DAY)) is None:
        return True
    params = {"days": retention_days, "before": before, "most": RUNS_PER_STATEMENT}
    at = BEGINNING[0]
    while runs := conn.execute(RUNS_TO_PRUNE, {**params, "at": at}).fetchall():
        named = [run for _, run in runs]
        while conn.execute(PRUNE_TASKS, (named,)).rowcount == TASKS_PER_STATEMENT:
            if time.monotonic() >= deadline:
                return False
        conn.execute(DELETE_RUNS, (named,))
        conn.execute(MARK_PRUNED, (named,))
        at = runs[-1][0]
        if time.monotonic() >= deadline:
            return False
    return True


@dataclass(slots=True)
class KeptRunPruner:
    """Deletes marked runs whose last tasks were discarded or retried, in a circle.

    Attributes:
      place: The end time and the id of the last run that it has looked at.
    """

    place: tuple[datetime, UUID] = BEGINNING

    def prune(
        self, conn: Conn, retention_days: float, seconds: float, old_enough: OldEnough = any_age
    ) -> bool:
        """Delete the marked runs that have no tasks any more. Arguments as in `prune_runs`.

        Returns:
          True if it has come to the end of the circle.
        """
        deadline = time.monotonic() + seconds
        if (before := old_enough(retention_days * clocks.DAY)) is None:
            return True
        params: dict[str, Any] = {
            "days": retention_days,
            "before": before,
            "most": RUNS_PER_STATEMENT,
        }
        while True:
            params |= {"at": self.place[0], "id": self.place[1]}
            runs = conn.execute(NEXT_PRUNED, params).fetchall()
            if runs:
                named = ([run for _, run in runs],)
                conn.execute(PRUNE_TASKS, named)
                conn.execute(DELETE_RUNS, named)
            is_last = len(runs) < RUNS_PER_STATEMENT
            self.place = BEGINNING if is_last else (runs[-1][0], runs[-1][1])
            if is_last or time.monotonic() >= deadline:
                return is_last


def prune_content(conn: Conn, seconds: float) -> bool:
    """Delete dropped held deletions, and the seen ids of ended runs, in portions.

    Args:
      conn: A connection in autocommit mode.
      seconds: The time after which each of them stops.

    Returns:
      True if nothing is left.
    """
    return holds.prune(conn, seconds) & seen.prune(conn, seconds)


def remove_deleted(
    conn: Conn, retention_days: float, seconds: float, old_enough: OldEnough = any_age
) -> bool:
    """Remove the rows of items whose deletion the change feed reported long ago, in portions.

    Args:
      conn: A connection in autocommit mode.
      retention_days: The number of days since then.
      seconds: The time after which to stop.
      old_enough: Judges the age of the report. Default: by the database's clock alone.

    Returns:
      True if nothing is left.
    """
    if (before := old_enough(retention_days * clocks.DAY)) is None:
        return True
    reported = conn.execute(REPORTED, (retention_days, before)).fetchone()
    if reported is None:
        return True
    horizon, at = reported
    return removal.remove(conn, horizon, at, seconds)
