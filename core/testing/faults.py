"""Faults that the harness injects: those of workers, a broker and a network."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from core.errors import RateLimited, TransientError
from core.testing.queue import Entry


@dataclass(frozen=True, slots=True)
class Faults:
    """The probability of each fault, per task; the same seed gives the same faults.

    The harness limits the faults of one task, so that a correct plugin succeeds at any probability.

    Attributes:
      seed: The seed of the random numbers. Default: 0.
      transient: Probability of a `TransientError` before the task runs; at most once a task.
        Default: 0.
      rate_limited: Probability of a `RateLimited` before the task runs; at most once a task.
        Default: 0.
      kill: Probability that the worker dies after the task ran, before its result was committed.
        The task runs again; at most twice. Default: 0.
      twice: Probability that the message is delivered twice. The task runs again, and its second
        result is dropped. Default: 0.
      overlap: Probability that another task runs and is committed in between, so that the data this
        task read may be outdated. Default: 0.
      reorder: True to run tasks in any order. Default: False.
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
        """Return a mix of all faults."""
        return cls(
            seed, transient=0.2, rate_limited=0.1, kill=0.2, twice=0.2, overlap=0.3, reorder=True
        )


class Injector:
    """Decides the faults of one harness by random numbers."""

    MAX_KILLS = 2

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._random = random.Random(faults.seed)

    @property
    def rank(self) -> Callable[[], float] | None:
        """The source of random order for a reordered queue; None for the normal order."""
        return self._random.random if self._faults.reorder else None

    def before(self, entry: Entry) -> None:
        """Raise an injected error instead of running the task, once of each kind.

        Raises:
          TransientError, RateLimited: The injected fault.
        """
        if entry.attempts == 0 and self._strikes(self._faults.transient):
            raise TransientError("injected fault: transient")
        if entry.snoozes == 0 and self._strikes(self._faults.rate_limited):
            raise RateLimited("injected fault: rate limited", retry_after=30)

    def kills(self, entry: Entry) -> bool:
        """Return True if the worker dies now; at most twice for one task."""
        return entry.crashes < self.MAX_KILLS and self._strikes(self._faults.kill)

    def delivers_twice(self) -> bool:
        """Return True if the message is delivered again."""
        return self._strikes(self._faults.twice)

    def overlaps(self) -> bool:
        """Return True if another task runs in between."""
        return self._strikes(self._faults.overlap)

    def _strikes(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability
