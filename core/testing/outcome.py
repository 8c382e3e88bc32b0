"""The result of a sync in the harness."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from core.integration.base import START
from core.integration.context import RunInfo
from core.integration.results import Listing, Task
from core.states import RunState


@dataclass(frozen=True, slots=True)
class Parked:
    """A task that was parked, with the error and the number of its last attempt."""

    task: Task
    error: Exception
    attempts: int


@dataclass(frozen=True, slots=True)
class Deferred:
    """A task whose failure may pass, with the error of its last attempt and the next pause."""

    task: Task
    error: Exception
    seconds: float


@dataclass(slots=True)
class SyncResult:
    """The totals of all runs of one `Harness.sync`.

    Attributes:
      runs: The live run, its backfill and any resync.
      tasks_done: The number of tasks that ended as done.
      parked: Tasks that failed for good.
      skipped: The reasons of tasks that raised `SkipItem`.
      skipped_items: The numbers of items that were listed and not fetched, by reason.
      deferred: Tasks whose failure may pass. The next sync tries them again.
      listed: The complete listings.
      held: Listings of this sync whose deletions wait for a person.
      error: The error that stopped the account, or None.
      failures: Every error raised, also those before a successful attempt.
      outputs: The number of outputs by kind of change.
    """

    runs: list[RunInfo] = field(default_factory=list)
    tasks_done: int = 0
    parked: list[Parked] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    skipped_items: Counter[str] = field(default_factory=Counter)
    deferred: list[Deferred] = field(default_factory=list)
    listed: list[Listing] = field(default_factory=list)
    held: list[Listing] = field(default_factory=list)
    error: Exception | None = None
    failures: list[Exception] = field(default_factory=list)
    outputs: Counter[str] = field(default_factory=Counter)

    @property
    def state(self) -> RunState:
        """The state of the sync: `succeeded`, `partial` or `failed`."""
        if self.error is not None or any(parked.task.type == START for parked in self.parked):
            return RunState.FAILED
        return RunState.PARTIAL if self.parked or self.deferred else RunState.SUCCEEDED

    @property
    def tasks_parked(self) -> int:
        """The number of parked tasks."""
        return len(self.parked)

    @property
    def outputs_saved(self) -> int:
        """The number of items created or changed."""
        return self.outputs["saved"]

    @property
    def outputs_unchanged(self) -> int:
        """The number of unchanged items, and of late writes and updates that were ignored."""
        return self.outputs["unchanged"] + self.outputs["ignored"]

    @property
    def deletions_held(self) -> int:
        """The number of deletions that wait for a person."""
        return self.outputs["held"]

    @property
    def outputs_deleted(self) -> int:
        """The number of items marked deleted."""
        return self.outputs["deleted"]
