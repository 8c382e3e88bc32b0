"""A cache for slow counts: the longer a count takes, the longer it is cached."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from core.db.pool import Conn

CACHE_FACTOR = 100
"""The lifetime of a cached count, in multiples of the duration of the query."""


class CachedCount:
    """A count that is read repeatedly.

    Args:
      count: A function that queries the database.
    """

    def __init__(self, count: Callable[[Conn], Any]) -> None:
        self._count = count
        self._value: Any = None
        self._expires_at = float("-inf")

    def get(self, conn: Conn) -> Any:
        """Return the cached count; count again if it has expired."""
        started_at = time.monotonic()
        if started_at >= self._expires_at:
            self._value = self._count(conn)
            ended_at = time.monotonic()
            self._expires_at = ended_at + CACHE_FACTOR * (ended_at - started_at)
        return self._value
