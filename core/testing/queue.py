"""The work queue of the harness: ready and waiting tasks, and a clock that jumps."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from core.integration.context import RunInfo
from core.integration.results import Task
from core.states import Lane


@dataclass(slots=True)
class Run:
    """A tree of tasks.

    `began` is its first sequence number, and `keys` are the dedup keys that it has seen.
    """

    info: RunInfo
    began: int
    keys: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Entry:
    """A task on the queue, with what happened to it so far.

    `limits` are the budgets it draws on. `snoozed` is how long it has waited in all, in seconds.
    """

    id: str
    task: Task
    run: Run
    limits: frozenset[str]
    attempts: int = 0
    snoozes: int = 0
    snoozed: float = 0.0
    crashes: int = 0
    waits: int = 0

    @property
    def trigger(self) -> str:
        return self.run.info.trigger


class Queue:
    """Sort live tasks before backfill and high priority before low, then by age or `rank`."""

    def __init__(self, rank: Callable[[], float] | None = None) -> None:
        self.clock = 0.0
        self._rank = rank
        self._numbers = count(1)
        self._ready: list[tuple[tuple[float, ...], Entry]] = []
        self._waiting: list[tuple[float, int, Entry]] = []
        self._blocked: dict[str | None, float] = {}

    def put(self, entry: Entry, after: float = 0.0) -> None:
        """Make a task ready, `after` seconds from now."""
        if after > 0:
            heapq.heappush(self._waiting, (self.clock + after, next(self._numbers), entry))
        else:
            heapq.heappush(self._ready, (self._order(entry), entry))

    def block(self, limit: str | None, seconds: float) -> None:
        """Let tasks that draw on this limit wait; `None` stands for the whole account."""
        self._blocked[limit] = max(self._blocked.get(limit, 0.0), self.clock + seconds)

    def take(self) -> Entry | None:
        """The next task; the clock jumps to it if all have to wait. `None` when there is none."""
        while self._ready or self._waiting:
            if not self._ready:
                self.clock = max(self.clock, self._waiting[0][0])
            self._wake()
            while self._ready:
                _, entry = heapq.heappop(self._ready)
                wait = self._blocked_until(entry) - self.clock
                if wait <= 0:
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
