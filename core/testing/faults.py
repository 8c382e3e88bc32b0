"""Faults that the harness injects, like those of workers, a broker and a network."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from core.errors import RateLimited, TransientError
from core.testing.queue import Entry


@dataclass(frozen=True, slots=True)
class Faults:
    """How often which fault strikes, as a probability per task; the same seed strikes the same way.

    Each fault strikes one task so seldom that a correct plugin comes through, whatever the
    probability.

    Parameters:
      seed: Of the random numbers.
      transient: A `TransientError` before the task.
      rate_limited: A `RateLimited` before the task.
      kill: The worker dies after the task ran and before its result was kept: the task runs again.
      twice: The message is delivered twice: the task runs again, and its second result is dropped.
      overlap: Another task runs and is kept in between: what this task read may be old.
      reorder: Tasks run in any order.
    """

    seed: int = 0
    transient: float = 0.0
    rate_limited: float = 0.0
    kill: float = 0.0
    twice: float = 0.0
    overlap: float = 0.0
    reorder: bool = False

    @classmethod
    def storm(cls, seed: int = 0) -> Faults:
        """Everything at once."""
        return cls(
            seed, transient=0.2, rate_limited=0.1, kill=0.2, twice=0.2, overlap=0.3, reorder=True
        )


class Injector:
    """Throws the dice for one harness."""

    MAX_KILLS = 2

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._random = random.Random(faults.seed)

    @property
    def rank(self) -> Callable[[], float] | None:
        """Where a reordered queue takes its order from."""
        return self._random.random if self._faults.reorder else None

    def before(self, entry: Entry) -> None:
        """Fail instead of running the task, but not so often that it would be parked for it."""
        if entry.attempts == 0 and self._strikes(self._faults.transient):
            raise TransientError("injected fault: transient")
        if entry.snoozes == 0 and self._strikes(self._faults.rate_limited):
            raise RateLimited("injected fault: rate limited", retry_after=30)

    def kills(self, entry: Entry) -> bool:
        return entry.crashes < self.MAX_KILLS and self._strikes(self._faults.kill)

    def delivers_twice(self) -> bool:
        return self._strikes(self._faults.twice)

    def overlaps(self) -> bool:
        return self._strikes(self._faults.overlap)

    def _strikes(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability
