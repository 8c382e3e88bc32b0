"""What a sync of the harness came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from core.integration.base import START
from core.integration.context import RunInfo
from core.integration.results import Listing, Task
from core.states import RunState


@dataclass(frozen=True, slots=True)
class Parked:
    """A task that failed for good, with the error of its last attempt."""

    task: Task
    error: Exception
    attempts: int


@dataclass(slots=True)
class SyncResult:
    """The runs of one `Harness.sync`, added up.

    Attributes:
      runs: The live run, its backfill, and the resync it asked for.
      parked, skipped: Tasks that failed for good, and the reasons of those that had nothing to
        keep.
      held: Listings whose deletions wait for a person.
      error: What stopped the account, if it was stopped.
      failures: Every error raised, also those that a later attempt made good.
    """

    runs: list[RunInfo] = field(default_factory=list)
    tasks_done: int = 0
    parked: list[Parked] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    held: list[Listing] = field(default_factory=list)
    error: Exception | None = None
    failures: list[Exception] = field(default_factory=list)
    outputs: Counter[str] = field(default_factory=Counter)

    @property
    def state(self) -> RunState:
        if self.error is not None or any(parked.task.type == START for parked in self.parked):
            return RunState.FAILED
        return RunState.PARTIAL if self.parked else RunState.SUCCEEDED

    @property
    def tasks_parked(self) -> int:
        return len(self.parked)

    @property
    def outputs_saved(self) -> int:
        return self.outputs["saved"]

    @property
    def outputs_unchanged(self) -> int:
        """Late writes and updates of what is not kept count too."""
        return self.outputs["unchanged"] + self.outputs["ignored"]

    @property
    def outputs_deleted(self) -> int:
        return self.outputs["deleted"]
