"""Slots for slow work: few at a time in one process, and only a part of them for one user."""

from __future__ import annotations

import threading
from collections import Counter


class Slots:
    """Slots of one process, which its threads take and release.

    Args:
      most: The number of slots.
      per_user: The number of slots of one user, so that others get a slot too.
      max_waiting: The number of threads that wait for a slot.
      seconds: Seconds that a thread waits for a slot.
    """

    def __init__(self, most: int, per_user: int, max_waiting: int, seconds: float) -> None:
        self._most = most
        self._per_user = per_user
        self._max_waiting = max_waiting
        self._seconds = seconds
        self._changed = threading.Condition()
        self._running: Counter[str | None] = Counter()
        self._waiting = 0

    def take(self, user: str | None) -> bool:
        """Take a slot. Return False if none becomes free in time, or too many threads wait.

        Args:
          user: The user for whom the slot counts. None: an operator, who may take all of them.
        """
        with self._changed:
            if not self._has_room(user) and not self._wait(user):
                return False
            self._running[user] += 1
            return True

    def release(self, user: str | None) -> None:
        """Release a slot."""
        with self._changed:
            self._running[user] -= 1
            self._running += Counter()  # removes zero counts
            self._changed.notify_all()

    def _has_room(self, user: str | None) -> bool:
        full = user is not None and self._running[user] >= self._per_user
        return not full and self._running.total() < self._most

    def _wait(self, user: str | None) -> bool:
        if self._waiting >= self._max_waiting:
            return False
        self._waiting += 1
        try:
            return self._changed.wait_for(lambda: self._has_room(user), self._seconds)
        finally:
            self._waiting -= 1
