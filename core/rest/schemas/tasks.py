"""Tasks, and bulk actions on stopped ones."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from core.rest.schemas.common import RequestBody
from core.states import Lane, StoppedState, TaskState
from core.web.dependencies import NO_NUL
from core.web.timestamps import Timestamp


class Task(BaseModel):
    """One step of a run."""

    id: int = Field(description="The ID of the task")
    run_id: UUID = Field(description="The ID of the run")
    user_integration_id: UUID = Field(description="The ID of the account")
    integration_domain: str = Field(description="The domain of the integration")
    lane: Lane = Field(description="The lane of the run")
    parent_id: int | None = Field(
        description="The task that returned this one; null for a root task"
    )
    retry_of: int | None = Field(description="The task of which this one is a copy")
    retried_as: int | None = Field(description="The copy of this task that replaces it")
    type: str = Field(description="The type of the task, as the plugin defines it")
    payload: dict[str, Any] = Field(description="The parameters of the task")
    state: TaskState = Field(description="The state of the task")
    priority: int = Field(description="The priority. Tasks with a higher number run first")
    available_at: datetime | None = Field(
        description="The earliest time at which a ready task is dispatched"
    )
    attempts: int = Field(description="The number of failed attempts")
    crashes: int = Field(description="The number of crashes")
    snoozes: int = Field(description="The number of snoozes, which count no attempt")
    snoozed_seconds: float = Field(description="The duration of all snoozes, in seconds")
    reason: str | None = Field(description="The reason for the current state")
    errors: list[dict[str, Any]] | None = Field(description="The errors of the failed attempts")
    outputs_saved: int = Field(description="The number of items created or changed")
    outputs_unchanged: int = Field(description="The number of items found unchanged")
    outputs_deleted: int = Field(description="The number of items marked deleted")
    skipped: dict[str, int] | None = Field(
        description=(
            "The numbers of items that were listed and not fetched, by reason; null if there are"
            " none"
        )
    )
    progress_done: int | None = Field(
        description="The units of work that the task last reported as done; null without a report"
    )
    progress_total: int | None = Field(
        description="The units of its complete work; null if they are unknown"
    )
    followups: int = Field(description="The number of tasks that this task returned")
    created_at: datetime = Field(description="The time at which the task was created")
    started_at: datetime | None = Field(
        description="The start of the last attempt; recorded only for a suspect task"
    )
    finished_at: datetime | None = Field(description="The time at which the task ended")


class StoppedTask(BaseModel):
    """A task that has stopped, and waits for a person or for its next try."""

    id: int = Field(description="The ID of the task")
    run_id: UUID = Field(description="The ID of the run")
    user_integration_id: UUID = Field(description="The ID of the account")
    user_id: str = Field(description="The user who owns the account")
    integration_domain: str = Field(description="The domain of the integration")
    lane: Lane = Field(description="The lane of the run")
    type: str = Field(description="The type of the task, as the plugin defines it")
    state: StoppedState = Field(description="The state of the task")
    attempts: int = Field(description="The number of failed attempts")
    reason: str | None = Field(description="The reason for the state; its first 300 characters")
    error: str | None = Field(description="The last error; its first 300 characters")
    created_at: datetime = Field(description="The time at which the task was created")
    finished_at: datetime | None = Field(description="The time at which the task stopped")


class Retried(BaseModel):
    """The tasks that replace a retried task."""

    tasks: list[int] = Field(description="The IDs of the new tasks")


class TaskRetry(RequestBody):
    """The change of a task that is retried."""

    payload: dict[str, Any] | None = Field(
        None, description="The new parameters of the task. Default: the same parameters"
    )


class TaskFilter(RequestBody, json_schema_extra={"minProperties": 1}):
    """Conditions on stopped tasks. Null: any value. At least one is required."""

    user_integration_id: UUID | None = Field(None, description="The account of the tasks")
    integration_domain: str | None = Field(
        None, max_length=63, pattern=NO_NUL, description="The integration of the tasks"
    )
    type: str | None = Field(
        None, max_length=200, pattern=NO_NUL, description="The type of the tasks"
    )
    reason: str | None = Field(
        None,
        max_length=500,
        pattern=NO_NUL,
        description="A part of the tasks' reason; upper and lower case are equal",
    )
    since: Timestamp | None = Field(
        None, description="The earliest time at which the tasks stopped"
    )
    until: Timestamp | None = Field(None, description="The tasks stopped before this time")
    state: StoppedState | None = Field(None, description="The state of the tasks. Default: both")
