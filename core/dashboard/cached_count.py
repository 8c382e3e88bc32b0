"""Counting what takes its time: the longer it took, the longer the count is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from core.db.pool import Conn

COST = 100
"""So many times longer than a count took, it stands."""


class CachedCount:
    """A count that is looked at again and again.

    Parameters:
      count: Asks the database.
    """

    def __init__(self, count: Callable[[Conn], Any]) -> None:
        self._count = count
        self._found: Any = None
        self._until = float("-inf")

    def look(self, conn: Conn) -> Any:
        """The latest count."""
        begun = time.monotonic()
        if begun >= self._until:
            self._found = self._count(conn)
            ended = time.monotonic()
            self._until = ended + COST * (ended - begun)
        return self._found
