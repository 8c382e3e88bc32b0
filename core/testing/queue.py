"""The harness's queue of ready and waiting tasks, with a virtual clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from core.integration.context import RunInfo
from core.integration.results import Task
from core.states import Lane, TaskState, Trigger


@dataclass(slots=True)
class Run:
    """A tree of tasks.

    Attributes:
      info: The run's id, trigger and lane.
      began: The run's first sequence number.
      tasks: Its tasks so far, by deduplication key.
    """

    info: RunInfo
    began: int
    tasks: dict[str, Entry] = field(default_factory=dict)


@dataclass(slots=True)
class Entry:
    """A task on the queue, with its history.

    Attributes:
      limits: The names of the limits that the task uses.
      state: `ready` on the queue, `queued` while the task runs, and then the state of its end.
      carried: True for a copy of an earlier run's task, and for follow-ups of tasks that never
        sweep.
      first_failed: The clock at its first failure that counted, moved by the snoozes since.
      now: The clock at its latest failure.
    """

    id: str
    task: Task
    run: Run
    limits: frozenset[str]
    key: str = ""
    state: TaskState = TaskState.READY
    carried: bool = False
    attempts: int = 0
    snoozes: int = 0
    crashes: int = 0
    waits: int = 0
    deferrals: int = 0
    first_failed: float | None = None
    now: float = 0.0

    @property
    def failing_seconds(self) -> float:
        """Seconds between the first failure and the latest; 0 before the first."""
        return 0.0 if self.first_failed is None else self.now - self.first_failed

    @property
    def trigger(self) -> str:
        """The trigger of the task's run."""
        return self.run.info.trigger

    @property
    def never_sweeps(self) -> bool:
        """True if nothing that the task lists is compared."""
        is_hint = self.trigger == Trigger.HINT and self.run.info.lane == Lane.LIVE
        return self.carried or is_hint


class Queue:
    """A queue ordered by lane (live first), priority (high first) and age; or by `rank`."""

    def __init__(self, rank: Callable[[], float] | None = None) -> None:
        self.clock = 0.0
        self._rank = rank
        self._numbers = count(1)
        self._ready: list[tuple[tuple[float, ...], Entry]] = []
        self._waiting: list[tuple[float, int, Entry]] = []
        self._blocked: dict[str | None, float] = {}

    def put(self, entry: Entry, after: float = 0.0) -> None:
        """Make a task ready, `after` seconds from now."""
        entry.state = TaskState.READY
        if after > 0:
            heapq.heappush(self._waiting, (self.clock + after, next(self._numbers), entry))
        else:
            heapq.heappush(self._ready, (self._order(entry), entry))

    def block(self, limit: str | None, seconds: float) -> None:
        """Make tasks that use this limit wait, in seconds; None stands for the complete account."""
        self._blocked[limit] = max(self._blocked.get(limit, 0.0), self.clock + seconds)

    def take(self) -> Entry | None:
        """Return the next task, or None if there is none.

        If all tasks have to wait, the clock jumps to the first one's time.
        """
        while self._ready or self._waiting:
            if not self._ready:
                self.clock = max(self.clock, self._waiting[0][0])
            self._wake()
            while self._ready:
                _, entry = heapq.heappop(self._ready)
                wait = self._blocked_until(entry) - self.clock
                if wait <= 0:
                    entry.state = TaskState.QUEUED
                    return entry
                self.put(entry, wait)
        return None

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.clock:
            self.put(heapq.heappop(self._waiting)[2])

    def _blocked_until(self, entry: Entry) -> float:
        return max(self._blocked.get(limit, 0.0) for limit in (None, *entry.limits))

    def _order(self, entry: Entry) -> tuple[float, ...]:
        number = float(next(self._numbers))
        if self._rank is not None:
            return (self._rank(), number)
        return (float(entry.run.info.lane != Lane.LIVE), float(-entry.task.priority), number)
