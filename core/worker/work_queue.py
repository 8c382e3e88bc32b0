"""The queue between the consumers of a worker process and its threads."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Collection
from queue import Empty, Queue
from typing import Any

from core.worker.reserve import Reserve


class WorkQueue(Queue[Any]):
    """A queue that wakes one thread at a time, and leaves reserved threads to users that hold none.

    A thread takes the oldest item that may start. The dispatcher cannot keep the reserve, because
    only the process knows its running tasks. An item whose user holds all threads that one user
    may hold waits here for the next of them. There are no priorities, as all actors have the same.

    The thread that takes an item wakes the next one if items remain. While a task computes, the
    others would only wait for Python's global lock; while it waits, they run immediately. Python's
    queue wakes a thread for each item, which costs more than a short task.

    Args:
      reserve: The reserved threads of the process. Default: none.
    """

    queue: deque[Any]

    def __init__(self, reserve: Reserve | None = None) -> None:
        super().__init__()
        self._reserve = reserve or Reserve()
        self._waking = False
        self._running: dict[threading.Thread, str | None] = {}
        self._waiting = Counter[str | None]()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002  the signature of a queue; this one is never full
        """Add an item. Wake a thread, unless one has been woken and has not taken an item yet."""
        with self.mutex:
            self._put(item)
            self._waiting[_user(item)] += 1
            self.unfinished_tasks += 1
            if self._may_start(_user(item)):
                self._wake()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return the oldest item that may start.

        Raises:
          Empty: There is none after `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self.not_empty:
            while (place := self._first()) is None:
                left = None if until is None else until - time.monotonic()
                if not block or (left is not None and left <= 0):
                    raise Empty
                self.not_empty.wait(left)
                # If another thread took the item, the next wake-up must not wait for this one.
                self._waking = False
            item = self.queue[place]
            del self.queue[place]
            self._leave(item)
            self._running[threading.current_thread()] = _user(item)
            self._waking = False
            if self._any():
                self._wake()
            return item

    def task_done(self) -> None:
        """Record that this thread has ended its item. It takes the next one itself."""
        with self.mutex:
            self._running.pop(threading.current_thread(), None)
        super().task_done()

    def discard(self, ids: Collection[str]) -> None:
        """Remove the items of tasks that were returned, by the ids of their messages."""
        with self.mutex:
            items = list(self.queue)
            self.queue.clear()
            for item in items:
                if _id(item) in ids:
                    self._leave(item)
                    self.unfinished_tasks -= 1
                else:
                    self._put(item)

    def held_back(self, name: str) -> int:
        """Return the number of items from a queue of Redis that wait beside a reserved thread.

        It is 0 if a waiting item may start.
        """
        with self.mutex:
            if not self.queue or self._any() or self._free() <= 0:
                return 0
            return sum(item.message.queue_name == name for item in self.queue)

    def _leave(self, item: Any) -> None:
        """Count an item that no longer waits."""
        user = _user(item)
        self._waiting[user] -= 1
        if not self._waiting[user]:
            del self._waiting[user]

    def _any(self) -> bool:
        """Return True if an item may start. The cost depends on the number of users alone."""
        return any(map(self._may_start, self._waiting))

    def _first(self) -> int | None:
        """Return the place of the oldest item that may start; None if none may."""
        if not self._any():
            self._forget_ended()
            if not self._any():
                return None
        return next(place for place, item in enumerate(self.queue) if self._may_start(_user(item)))

    def _may_start(self, user: str | None) -> bool:
        """Return True unless the user holds threads, and only reserved threads are free."""
        if not self._reserve.kept or not user or self._free() > self._reserve.kept:
            return True
        return user not in self._running.values()

    def _free(self) -> int:
        """Return the number of threads without an item."""
        return self._reserve.threads - len(self._running)

    def _forget_ended(self) -> None:
        """Forget threads that died or were replaced, because their tasks hang."""
        for thread in [thread for thread in self._running if not _works(thread)]:
            del self._running[thread]

    def _wake(self) -> None:
        # If no thread sleeps, one of them takes the item when its task ends.
        if not self._waking:
            self._waking = True
            self.not_empty.notify()


def _works(thread: threading.Thread) -> bool:
    """Return True unless the thread has died, or Dramatiq has stopped it."""
    return thread.is_alive() and bool(getattr(thread, "running", True))


def _user(item: Any) -> str | None:
    """Return the user of a task; None for other items, and for messages of an older leader."""
    dispatch = getattr(getattr(item, "message", None), "dispatch", None)
    return getattr(dispatch, "user", None) or None


def _id(item: Any) -> str | None:
    """Return the id of the message of a task."""
    dispatch = getattr(getattr(item, "message", None), "dispatch", None)
    return None if dispatch is None else dispatch.id
