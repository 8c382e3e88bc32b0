"""In-flight tasks: tasks that this process has received, and whose outcomes are not saved yet.

The heartbeat renews their leases.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from core.ledger.outcomes import Dispatch

REMEMBERED = 4096
"""The number of finished dispatches whose ids are kept, to refuse a second delivery."""

LANE_SECONDS = 0.5
"""Seconds that a suspect waits for another one to be saved, before it is requeued."""


@dataclass(slots=True)
class InflightTask:
    """One dispatch in this process.

    Attributes:
      thread: The thread that runs the task; None before it starts, and while its outcome is saved.
      started: True if a thread has started the task, or if the message is a result.
      deadline: The time after which the lease is not renewed, by `time.monotonic`.
    """

    dispatch: Dispatch
    thread: threading.Thread | None = None
    started: bool = False
    deadline: float = float("inf")


class InflightTasks:
    """The in-flight tasks of a process, thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lane_free = threading.Condition(self._lock)
        self._tasks: dict[str, InflightTask] = {}
        self._done: OrderedDict[str, None] = OrderedDict()
        self._suspect: str | None = None

    def receive(self, dispatch: Dispatch, *, started: bool = False) -> bool:
        """Add a dispatch whose message has arrived.

        Args:
          dispatch: The dispatch.
          started: True if the message is a result, so that the process neither runs nor releases
            the task. Default: False.

        Returns:
          False if the dispatch is already in flight or done.
        """
        with self._lock:
            if dispatch.id in self._tasks or dispatch.id in self._done:
                return False
            self._tasks[dispatch.id] = InflightTask(dispatch, started=started)
            return True

    def start(self, dispatch: Dispatch, seconds: float) -> bool:
        """Start a dispatch in this thread.

        Args:
          dispatch: The dispatch.
          seconds: The time for which its lease is renewed, unless `finish` is called before.

        Returns:
          False if another thread runs the dispatch or has run it.
        """
        with self._lock:
            task = self._tasks.setdefault(dispatch.id, InflightTask(dispatch))
            if task.started or dispatch.id in self._done:
                if dispatch.id in self._done:
                    del self._tasks[dispatch.id]
                return False
            task.started, task.thread, task.deadline = (
                True,
                threading.current_thread(),
                time.monotonic() + seconds,
            )
            return True

    def finish(self, dispatch: Dispatch) -> None:
        """Record that a dispatch has left its thread. Its outcome is still to be saved."""
        with self._lock:
            task = self._tasks.get(dispatch.id)
            if task is not None:
                task.thread, task.deadline = None, float("inf")
            # A suspect keeps its slot until its outcome is saved. Otherwise, the death of the next
            # suspect would count against it too.

    def release(self, ids: Iterable[str], *, done: bool = True) -> None:
        """Remove dispatches.

        Args:
          ids: The ids of the dispatches.
          done: True if their outcomes are saved, so that further deliveries are refused. False if
            they may be received again. Default: True.
        """
        with self._lock:
            for id in ids:
                self._tasks.pop(id, None)
                self._leave_suspect_lane(id)
                if done:
                    self._done[id] = None
            while len(self._done) > REMEMBERED:
                self._done.popitem(last=False)

    def enter_suspect_lane(self, dispatch: Dispatch) -> bool:
        """Reserve the only place for a suspect in this process.

        With one suspect at a time, the death of the process counts against the right task.

        Returns:
          False if another suspect keeps the place for longer than `LANE_SECONDS`.
        """
        with self._lock:
            self._lane_free.wait_for(lambda: self._suspect is None, LANE_SECONDS)
            if self._suspect is None:
                self._suspect = dispatch.id
            return self._suspect == dispatch.id

    def _leave_suspect_lane(self, id: str) -> None:
        if self._suspect == id:
            self._suspect = None
            self._lane_free.notify()

    def active_leases(self) -> list[tuple[int, int]]:
        """Return the (task, dispatch_no) of each lease to renew.

        The leases of tasks whose thread died or whose deadline has passed are left to expire.
        """
        now = time.monotonic()
        with self._lock:
            return [
                (task.dispatch.task_id, task.dispatch.dispatch_no)
                for task in self._tasks.values()
                if task.deadline > now and (task.thread is None or task.thread.is_alive())
            ]

    def orphaned(self) -> list[Dispatch]:
        """Return the tasks whose thread died while it ran them."""
        with self._lock:
            return [
                task.dispatch
                for task in self._tasks.values()
                if task.thread is not None and not task.thread.is_alive()
            ]

    def not_started(self) -> list[Dispatch]:
        """Return the tasks that no thread has started."""
        with self._lock:
            return [task.dispatch for task in self._tasks.values() if not task.started]

    @property
    def runs(self) -> set[str]:
        """The runs of all in-flight tasks."""
        with self._lock:
            return {task.dispatch.run_id for task in self._tasks.values()}

    @property
    def running(self) -> int:
        """The number of threads that run a task now."""
        with self._lock:
            return sum(1 for task in self._tasks.values() if task.thread is not None)

    def __len__(self) -> int:
        return len(self._tasks)
