"""Expressions that an index and the statements that it serves share.

The planner uses a partial index, or an index on an expression, only for statements that contain its
condition or its expression.
"""

from __future__ import annotations

from core.states import CARRIED_TASKS, STOPPED_TASKS, TaskState, literals

IS_STOPPED = f"state IN ({literals(STOPPED_TASKS)}) AND retried_as IS NULL"
"""The condition of a task that has stopped, and that no copy continues (`sync_task_owed`)."""

IS_CARRIED = f"state IN ({literals(CARRIED_TASKS)}) AND retried_as IS NULL"
"""The condition of a task that the next run of its account continues (`sync_task_carried`)."""

IS_DEFERRED = f"state = '{TaskState.DEFERRED}' AND retried_as IS NULL"
"""The condition of a task that is tried again later (`sync_task_deferred`)."""

YEAR_2000 = "'2000-01-01 00:00:00+00'::timestamp with time zone"

NEXT_SYNC_LESS_INTERVAL = (
    f"next_sync_at - {YEAR_2000} - poll_interval_minutes::double precision * '00:01:03'::interval"
)
"""The interval between the year 2000 and one poll before the next one.

It is immutable (`user_integration_far_ahead`).
"""
