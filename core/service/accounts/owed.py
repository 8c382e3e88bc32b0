"""The tasks that an account owes, and the time as of which its content is complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core.db.indexed import IS_STOPPED
from core.db.pool import Conn
from core.db.row_factory import dataclass_row
from core.service.formatting import ago, counted
from core.states import Lane, RunState, TaskState, Trigger, literals

MAX_LISTED = 10_000
"""The number of owed tasks of an account above which a listing does not count them."""

MAX_RETRIES_BACK = 20
"""The number of earlier retries of a task among which the query finds its first failure."""

# A crash or a cancellation does not count as an attempt, and sets no time of a first failure.
_SINCE = "coalesce(first_failed_at, finished_at, created_at)"

# The owed tasks of an account `a`: stopped tasks without a copy, served by `sync_task_owed`, and
# their copies while these are open, served by `sync_task_ready` and `sync_task_queued`.
_OWED_TASKS = f"""
    SELECT dedup_key, retry_of, {_SINCE} AS since FROM sync_task
    WHERE user_integration_id = a.id AND {IS_STOPPED}
    UNION ALL
    SELECT dedup_key, retry_of, {_SINCE} FROM sync_task
    WHERE state = '{TaskState.READY}' AND integration_domain = a.integration_domain
      AND user_integration_id = a.id AND retry_of IS NOT NULL
    UNION ALL
    SELECT dedup_key, retry_of, {_SINCE} FROM sync_task
    WHERE state = '{TaskState.QUEUED}' AND integration_domain = a.integration_domain
      AND user_integration_id = a.id AND retry_of IS NOT NULL
"""
# A run that only retried tasks listed nothing, nor did one whose root task is not done. A poll that
# found nothing has no row, so the account has its start. An older version writes only runs. While a
# backfill is open, some items of later runs may be missing: the latest run counts that had ended
# before. A comparison with the source is such a backfill. `sync_run_open` and
# `sync_run_history` serve it.
_LISTED = f"""
    SELECT started_at FROM sync_run
    WHERE user_integration_id = a.id AND lane = '{Lane.LIVE}'
      AND state IN ({literals((RunState.SUCCEEDED, RunState.PARTIAL))})
      AND trigger <> '{Trigger.RETRY}' AND tasks_done > 0
"""
_BACKFILL = f"""
    SELECT started_at FROM sync_run WHERE user_integration_id = a.id
      AND lane = '{Lane.BACKFILL}' AND state = '{RunState.RUNNING}'
"""
_COMPLETE_AS_OF = f"""
CASE WHEN EXISTS ({_OWED_TASKS}) THEN NULL
    WHEN EXISTS ({_BACKFILL}) THEN (
        {_LISTED} AND finished_at <= ({_BACKFILL}) ORDER BY started_at DESC LIMIT 1)
    ELSE greatest(a.listing_began_at, ({_LISTED} ORDER BY started_at DESC LIMIT 1)) END
"""
OWED_COLUMNS = f"""
(SELECT count(DISTINCT dedup_key)::int FROM (
    SELECT dedup_key FROM ({_OWED_TASKS}) owing LIMIT {MAX_LISTED}) owed) AS owed_tasks,
{_COMPLETE_AS_OF} AS complete_as_of
"""
"""The columns of a listing of accounts `a`."""

# A task that stopped in several runs counts once, by its key. A task that a person retries begins a
# new history (see `COPY_TASKS`), so the first failure is that of the earliest original. The primary
# key serves the search for originals.
OWED = f"""
SELECT owed.tasks, owed.since, {_COMPLETE_AS_OF} AS complete_as_of
FROM user_integration a CROSS JOIN LATERAL (
    WITH RECURSIVE owing AS ({_OWED_TASKS}), history AS (
        SELECT retry_of, since, 0 AS step FROM owing
        UNION ALL
        SELECT o.retry_of, o.since, history.step + 1 FROM history CROSS JOIN LATERAL (
            SELECT retry_of, {_SINCE} AS since FROM sync_task WHERE id = history.retry_of
        ) o
        WHERE history.step < {MAX_RETRIES_BACK}
    )
    SELECT (SELECT count(DISTINCT dedup_key)::int FROM owing) AS tasks,
        (SELECT min(since) FROM history) AS since
) owed
WHERE a.id = %(account)s
"""


@dataclass(frozen=True, slots=True)
class Owed:
    """The owed tasks of an account: deferred, parked, or continued and not yet done.

    Discarded tasks are not owed.

    Attributes:
      tasks: Their number.
      since: The time of the oldest one: its first failure. None if no task is owed.
      complete_as_of: The start of the last run after which nothing is owed. While a backfill is
        open, the last one that ended before it. None if tasks are owed, or without such a run.
    """

    tasks: int
    since: datetime | None
    complete_as_of: datetime | None = None

    @property
    def sentence(self) -> str:
        """A text for people, which names the number of owed tasks and the age of the oldest one."""
        were, are = ("was", "is") if self.tasks == 1 else ("were", "are")
        tasks = f"{counted(self.tasks, 'task')} failed or {were} cancelled, and {are} not done"
        return f"Incomplete: {tasks}. The first failure was {ago(self.since)}."

    @property
    def completeness(self) -> str:
        """The number of owed tasks, or the time as of which the account is complete."""
        return completeness({"owed_tasks": self.tasks, "complete_as_of": self.complete_as_of})


def owed_by(conn: Conn, account: UUID) -> Owed:
    """Count the owed tasks of an account, and find the time as of which it is complete."""
    cursor = conn.cursor(row_factory=dataclass_row(Owed))
    row = cursor.execute(OWED, {"account": account}).fetchone()
    return row or Owed(0, None)


def completeness(row: Mapping[str, Any]) -> str:
    """Return the text of a row with `OWED_COLUMNS`: "2 h ago", "3 tasks not done" or "not yet"."""
    tasks: int = row["owed_tasks"]
    if not tasks:
        return ago(row["complete_as_of"]) if row["complete_as_of"] else "not yet"
    number = f"{tasks:,}+ tasks" if tasks >= MAX_LISTED else counted(tasks, "task")
    return f"{number} not done"
