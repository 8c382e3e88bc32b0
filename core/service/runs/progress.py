"""The progress of a run: how much is done, how fast, and how much is left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core.accounts import store
from core.accounts.store import Account
from core.db.pool import Conn
from core.db.rows import fetch
from core.errors import NotFound
from core.ledger.completion import COUNTS, DELETIONS_HELD, SKIPPED, TASKS_OF_RUN
from core.service.accounts.owed import Owed
from core.service.count_cache import CountCache
from core.service.formatting import number
from core.states import RunState, TaskState

COUNTERS = (
    "tasks_done",
    "tasks_parked",
    "tasks_deferred",
    "outputs_saved",
    "outputs_unchanged",
    "outputs_deleted",
    "deletions_held",
)
"""The counters of a run: columns of its row, and attributes of its progress."""

PACE_SECONDS = 300
"""The time over which the pace of a run is measured, in seconds."""

MIN_DONE = 5
"""The number of tasks that have to end in this time before the pace is known."""

RUN_COUNTERS = """
SELECT id, user_integration_id, integration_domain, lane, trigger, state, tasks_done, tasks_parked,
    tasks_deferred, outputs_saved, outputs_unchanged, outputs_deleted, deletions_held, skipped,
    error,
    extract(epoch FROM coalesce(finished_at, clock_timestamp()) - started_at)::float AS seconds
FROM sync_run WHERE id = %(run)s
"""
_REPORTING = f"t.state = '{TaskState.QUEUED}' AND t.progress_done IS NOT NULL"
CURRENT = f"""
SELECT c.*, {SKIPPED} AS skipped, {DELETIONS_HELD} AS deletions_held, clock_timestamp() AS now
FROM (VALUES (%(run)s::uuid)) AS r (id) CROSS JOIN (
    SELECT {COUNTS},
        count(*) AS known,
        count(*) FILTER (WHERE t.state = '{TaskState.QUEUED}') AS queued,
        count(*) FILTER (WHERE t.state = '{TaskState.READY}') AS ready,
        sum(t.progress_done) FILTER (WHERE {_REPORTING})::bigint AS reported_done,
        CASE WHEN bool_and(t.progress_total IS NOT NULL) FILTER (WHERE {_REPORTING})
            THEN sum(t.progress_total) FILTER (WHERE {_REPORTING})::bigint END AS reported_total,
        min(t.available_at) FILTER (WHERE t.state = '{TaskState.READY}') AS next_at,
        count(*) FILTER (WHERE t.state = '{TaskState.DONE}'
            AND t.finished_at > clock_timestamp() - interval '{PACE_SECONDS} s') AS done_lately
    FROM {TASKS_OF_RUN}
) c
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a run at one moment.

    Attributes:
      run: The row of the run.
      skipped: The numbers of skipped items so far, by reason; None if there are none.
      known: The number of tasks so far. It may grow while the run is open. A task that was retried
        within the run counts once.
      reported_done: The units that the dispatched tasks report as done; None without a report.
      reported_total: The units of their complete work; None if a task does not know them.
      next_at: The earliest time at which a ready task may start.
      done_lately: The number of tasks that were done in the last `PACE_SECONDS`.
      now: The time of the database.
    """

    run: dict[str, Any]
    known: int
    tasks_done: int
    tasks_parked: int
    tasks_deferred: int
    queued: int
    ready: int
    reported_done: int | None
    reported_total: int | None
    outputs_saved: int
    outputs_unchanged: int
    outputs_deleted: int
    deletions_held: int
    skipped: dict[str, int] | None
    next_at: datetime | None
    done_lately: int
    now: datetime

    @property
    def state(self) -> str:
        """The run's state."""
        return str(self.run["state"])

    @property
    def closed(self) -> int:
        """The number of tasks that have ended in this run."""
        return self.tasks_done + self.tasks_parked + self.tasks_deferred

    @property
    def per_minute(self) -> float | None:
        """The measured pace, in tasks per minute; None before enough tasks are done."""
        seconds: float = min(PACE_SECONDS, self.run["seconds"])
        if self.done_lately < MIN_DONE or seconds <= 0:
            return None
        return round(60 * self.done_lately / seconds, 1)

    @property
    def ends_at(self) -> datetime | None:
        """The time at which the known tasks end at this pace; None if the pace is unknown."""
        if self.per_minute is None:
            return None
        return self.now + timedelta(minutes=(self.queued + self.ready) / self.per_minute)

    def counters(self) -> dict[str, int]:
        """Return the counters: the recorded ones, or the current ones while the run is open."""
        open_ = self.state == RunState.RUNNING
        return {name: getattr(self, name) if open_ else self.run[name] for name in COUNTERS}

    def skipped_items(self) -> dict[str, int]:
        """Return the numbers of items that the run has listed and not fetched, by reason."""
        found = self.skipped if self.state == RunState.RUNNING else self.run["skipped"]
        return dict(sorted((found or {}).items()))

    def report(self) -> str:
        """Return the report of the dispatched tasks: `512 of 2,048`; empty without one."""
        if self.reported_done is None:
            return ""
        total = f" of {number(self.reported_total)}" if self.reported_total is not None else ""
        return f"{number(self.reported_done)}{total}"

    def summary(self, owed: Owed) -> dict[str, Any]:
        """Return the last line of `polling sync --wait --json`.

        Args:
          owed: The owed tasks of the run's account.
        """
        return {
            "run_id": str(self.run["id"]),
            "state": self.state,
            **self.counters(),
            "outputs_skipped": sum(self.skipped_items().values()),
            "skipped": self.skipped_items(),
            "owed": owed.tasks,
            "owed_since": owed.since,
            "seconds": round(self.run["seconds"], 3),
        }


def progress(conn: Conn, run: UUID) -> Progress:
    """Count the tasks of a run by state.

    Raises:
      NotFound: The run does not exist.
    """
    rows = fetch(conn, RUN_COUNTERS, {"run": run})
    if not rows:
        raise NotFound("run-not-found", run=run)
    return Progress(rows[0], **fetch(conn, CURRENT, {"run": run})[0])


def cached(conn: Conn, counts: CountCache, run: UUID) -> Progress:
    """Return the progress of a run. That of a run with many tasks may be some seconds old.

    Raises:
      NotFound: The run does not exist.
    """
    return counts.get(("progress", run), lambda: progress(conn, run), lambda counted: counted.known)


def load_account(conn: Conn, run: Progress) -> Account:
    """Load the current account of a run."""
    return store.load(conn, run.run["user_integration_id"])
