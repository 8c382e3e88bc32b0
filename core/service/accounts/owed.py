"""The tasks that an account owes, and the time as of which its content is complete."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core.db.pool import Conn
from core.db.row_factory import dataclass_row
from core.service.formatting import ago
from core.states import STOPPED_TASKS, Lane, RunState, TaskState, Trigger, literals

# A task that stopped in several runs counts once, by its key.
# Stopped tasks without a copy, served by `sync_task_owed`; and their copies while these are open,
# served by `sync_task_ready` and `sync_task_queued`.
# A run that only retried tasks listed nothing, nor did one whose root task is not done. The index
# `sync_run_history` serves it.
OWED = f"""
SELECT count(DISTINCT dedup_key)::int AS tasks, min(since) AS since,
    CASE WHEN count(*) = 0 THEN (
        SELECT started_at FROM sync_run
        WHERE user_integration_id = %(account)s AND lane = '{Lane.LIVE}'
          AND state IN ({literals((RunState.SUCCEEDED, RunState.PARTIAL))})
          AND trigger <> '{Trigger.RETRY}' AND tasks_done > 0
        ORDER BY started_at DESC LIMIT 1
    ) END AS complete_as_of
FROM (
    SELECT dedup_key, coalesce(first_failed_at, created_at) AS since FROM sync_task
    WHERE user_integration_id = %(account)s AND state IN ({literals(STOPPED_TASKS)})
      AND retried_as IS NULL
    UNION ALL
    SELECT t.dedup_key, coalesce(t.first_failed_at, t.created_at)
    FROM user_integration a JOIN sync_task t ON t.user_integration_id = a.id
        AND t.integration_domain = a.integration_domain
    WHERE a.id = %(account)s AND t.state = '{TaskState.READY}' AND t.retry_of IS NOT NULL
    UNION ALL
    SELECT t.dedup_key, coalesce(t.first_failed_at, t.created_at)
    FROM user_integration a JOIN sync_task t ON t.user_integration_id = a.id
        AND t.integration_domain = a.integration_domain
    WHERE a.id = %(account)s AND t.state = '{TaskState.QUEUED}' AND t.retry_of IS NOT NULL
) owed
"""


@dataclass(frozen=True, slots=True)
class Owed:
    """The owed tasks of an account: deferred, parked, or continued and not yet done.

    Discarded tasks are not owed.

    Attributes:
      tasks: Their number.
      since: The time of the oldest one: its first failure. None if no task is owed.
      complete_as_of: The start of the last run after which nothing is owed. None if tasks are owed,
        or if no run has ended yet.
    """

    tasks: int
    since: datetime | None
    complete_as_of: datetime | None = None

    @property
    def sentence(self) -> str:
        """A text for people, such as "Incomplete: 2 tasks are owed. The oldest failed 3 h ago"."""
        tasks = "1 task is" if self.tasks == 1 else f"{self.tasks:,} tasks are"
        return f"Incomplete: {tasks} owed. The oldest failed {ago(self.since)}."


def owed_by(conn: Conn, account: UUID) -> Owed:
    """Count the owed tasks of an account, and find the time as of which it is complete."""
    cursor = conn.cursor(row_factory=dataclass_row(Owed))
    row = cursor.execute(OWED, {"account": account}).fetchone()
    assert row is not None
    return row
