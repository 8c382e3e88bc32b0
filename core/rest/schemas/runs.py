"""Runs."""

from __future__ import annotations

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field

from core.service.accounts.waiting import Wait as Explained
from core.states import Lane, RunState, Trigger, WaitCause


class Wait(BaseModel):
    """A reason why an account or a run waits."""

    reason: str = Field(description="A description for people")
    until: datetime | None = Field(description="The end of the wait; null if it is unknown")

    @classmethod
    def all_of(cls, wait: Explained | None) -> list[Self]:
        """Return the reasons for a client."""
        found = wait.all if wait is not None else ()
        return [cls(reason=each.reason, until=each.until) for each in found]


class Why(BaseModel):
    """The answer to the question why content is not here yet."""

    cause: WaitCause = Field(description="The cause")
    sentence: str = Field(description="The answer for people, with all numbers")
    until: datetime | None = Field(
        description="The end of the wait, or the next try; null if it is unknown"
    )
    ahead: int | None = Field(
        description="The number of tasks, or of accounts that share a limit, that are served"
        " first; null if it is unknown"
    )
    done: int | None = Field(
        description="The number of tasks of the open run that ended, or the units that its running"
        " tasks report as done; null if no run is open"
    )
    total: int | None = Field(
        description="The number of its known tasks, or the units of the complete work"
    )
    per_minute: float | None = Field(
        description="The measured pace of the last five minutes, in tasks; null without one"
    )
    ends_at: datetime | None = Field(
        description="The time at which the known tasks end at this pace; null if it is unknown"
    )
    remedy: str | None = Field(description="The next step for a person; null if there is none")

    @classmethod
    def of(cls, wait: Explained) -> Self:
        """Return the answer for a client."""
        remedy = wait.advice.next_step("rest") if wait.advice is not None else None
        return cls.model_validate(wait.to_json() | {"remedy": remedy})


class Owed(BaseModel):
    """The tasks that an account owes: deferred, parked, or continued and not yet done."""

    tasks: int = Field(description="The number of owed tasks")
    since: datetime | None = Field(
        description="The first failure of the oldest owed task; null if no task is owed"
    )


class Run(BaseModel):
    """One sync of one account. The counters are final once the run has ended."""

    id: UUID = Field(description="The ID of the run")
    user_integration_id: UUID = Field(description="The ID of the account")
    integration_domain: str = Field(description="The domain of the integration")
    lane: Lane = Field(description="The lane of the run")
    trigger: Trigger = Field(description="The reason why the run started")
    complete: bool = Field(
        description=(
            "True if the run lists everything again: a resync, or a run that confirms held"
            " deletions"
        )
    )
    state: RunState = Field(description="The state of the run")
    started_at: datetime = Field(description="The start of the run")
    finished_at: datetime | None = Field(description="The end of the run; null while it is open")
    tasks_done: int = Field(description="The number of tasks that are done")
    tasks_parked: int = Field(description="The number of parked tasks")
    tasks_deferred: int = Field(
        description="The number of deferred tasks; the engine retries them automatically"
    )
    outputs_saved: int = Field(description="The number of items created or changed")
    outputs_unchanged: int = Field(description="The number of items found unchanged")
    outputs_deleted: int = Field(description="The number of items marked deleted")
    skipped: dict[str, int] | None = Field(
        description=(
            "The numbers of items that were listed and not fetched, by reason; null if there are"
            " none"
        )
    )
    deletions_held: int = Field(
        description="The number of items whose deletion waits for a person's decision"
    )
    error: str | None = Field(description="The error of the run, such as that of a parked task")


class RunInFull(Run):
    """A run with its current counters."""

    tasks_known: int = Field(
        description="The number of tasks so far. It may grow while the run is open"
    )
    tasks_queued: int = Field(description="The number of dispatched tasks")
    tasks_ready: int = Field(description="The number of tasks that wait to be dispatched")
    progress_done: int | None = Field(
        description=(
            "The units of work that the dispatched tasks report as done, such as bytes or pages;"
            " null without a report"
        )
    )
    progress_total: int | None = Field(
        description="The units of their complete work; null if a task does not know them"
    )
    waits: list[Wait] = Field(description="The reasons why the run waits, the most important first")
    why: Why | None = Field(
        description="The cause of the wait, with numbers; null once the run has ended"
    )
    owed: Owed = Field(description="The tasks that the account of the run owes now")


class Requested(BaseModel):
    """The requested run: a new one, or the run that was already open."""

    run_id: UUID = Field(description="The ID of the run")
    new: bool = Field(description="True if the request started the run")
