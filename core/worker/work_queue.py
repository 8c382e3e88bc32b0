"""The queue between the consumers of a worker process and its threads."""

from __future__ import annotations

from queue import Queue
from typing import Any


class WorkQueue(Queue[Any]):
    """A queue that wakes one thread at a time, and has no priorities, as all actors have the same.

    The thread that takes an item wakes the next one if items remain. While a task computes, the
    others would only wait for Python's global lock; while it waits, they run immediately. Python's
    queue wakes a thread for each item, which costs more than a short task.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waking = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002  the signature of a queue; this one is never full
        """Add an item. Wake a thread, unless one has been woken and has not taken an item yet."""
        with self.mutex:
            self._put(item)
            self.unfinished_tasks += 1
            self._wake()

    def _get(self) -> Any:
        item = super()._get()
        self._waking = False
        if self._qsize():
            self._wake()
        return item

    def _wake(self) -> None:
        # If no thread sleeps, one of them takes the item when its task ends.
        if not self._waking:
            self._waking = True
            self.not_empty.notify()
