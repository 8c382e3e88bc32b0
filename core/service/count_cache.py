"""A cache for counts of many rows: the longer a count takes, the longer it is cached."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

LIFETIME_FACTOR = 100
"""The lifetime of a count, in multiples of the time that it took."""

MAX_LIFETIME_SECONDS = 60.0
MAX_COUNTS = 1_000

MANY_ROWS = 10_000
"""Counts of fewer rows are not cached."""

T = TypeVar("T")


class CountCache:
    """The counts of one process.

    Args:
      clock: Returns the time in seconds. Default: the monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, count: Callable[[], T], rows: Callable[[T], int]) -> T:
        """Return a cached count, or count.

        Args:
          key: The identity of the count.
          count: A function that counts.
          rows: Returns the number of rows that a count has read.
        """
        began = self._clock()
        with self._lock:
            expires_at, value = self._counts.get(key, (began, None))
        if began < expires_at:
            known: T = value
            return known
        counted = count()
        ended = self._clock()
        lifetime = min(LIFETIME_FACTOR * (ended - began), MAX_LIFETIME_SECONDS)
        with self._lock:
            self._counts.pop(key, None)
            if rows(counted) >= MANY_ROWS:
                self._counts[key] = (ended + lifetime, counted)
            while len(self._counts) > MAX_COUNTS:
                self._counts.popitem(last=False)
        return counted
