"""In-flight tasks: messages that this process has received and whose outcomes are not saved yet.

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
"""Ids of finished dispatches, to refuse a second delivery without a query."""


LANE_SECONDS = 0.5
"""How long a suspect waits for the suspect before it, before it is requeued."""


@dataclass(slots=True)
class InflightTask:
    """One dispatch in this process.

    Attributes:
      thread: The thread that runs the task; None before it starts, and while its outcome is saved.
      deadline: In `time.monotonic` seconds. After it, the lease is not renewed any more.
    """

    dispatch: Dispatch
    thread: threading.Thread | None = None
    started: bool = False
    deadline: float = float("inf")


class InflightTasks:
    """The in-flight tasks of a process, safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lane_free = threading.Condition(self._lock)
        self._tasks: dict[str, InflightTask] = {}
        self._done: OrderedDict[str, None] = OrderedDict()
        self._suspect: str | None = None

    def receive(self, dispatch: Dispatch, *, started: bool = False) -> bool:
        """Add a dispatch whose message has arrived. False, if it is in flight or done already.

        Parameters:
          started: The message is a result: there is nothing to run and nothing to release. Default:
            False.
        """
        with self._lock:
            if dispatch.id in self._tasks or dispatch.id in self._done:
                return False
            self._tasks[dispatch.id] = InflightTask(dispatch, started=started)
            return True

    def start(self, dispatch: Dispatch, seconds: float) -> bool:
        """Start a dispatch in this thread. False, if another thread runs it or has run it.

        Parameters:
          seconds: How long its lease is renewed from now on, until `finish`.
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
        """Note that its thread is free; its outcome still has to be saved."""
        with self._lock:
            task = self._tasks.get(dispatch.id)
            if task is not None:
                task.thread, task.deadline = None, float("inf")
            # A suspect keeps its lane until it is saved: the death of the next suspect would count
            # against it as well.

    def release(self, ids: Iterable[str], *, done: bool = True) -> None:
        """Remove dispatches.

        Parameters:
          done: Their outcomes are saved, so further deliveries are refused. False: they may be
            received again. Default: True.
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
        """Reserve the only place for a suspect in this process, so that a death convicts the right
        task.
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

        Leases of dead threads' tasks and of tasks past their deadline are left to expire.
        """
        now = time.monotonic()
        with self._lock:
            return [
                (task.dispatch.task_id, task.dispatch.dispatch_no)
                for task in self._tasks.values()
                if task.deadline > now and (task.thread is None or task.thread.is_alive())
            ]

    def orphaned(self) -> list[Dispatch]:
        """Tasks whose thread died while it ran them."""
        with self._lock:
            return [
                task.dispatch
                for task in self._tasks.values()
                if task.thread is not None and not task.thread.is_alive()
            ]

    def not_started(self) -> list[Dispatch]:
        """Tasks that no thread has started."""
        with self._lock:
            return [task.dispatch for task in self._tasks.values() if not task.started]

    @property
    def runs(self) -> set[str]:
        """The runs of all in-flight tasks."""
        with self._lock:
            return {task.dispatch.run_id for task in self._tasks.values()}

    @property
    def running(self) -> int:
        """How many threads run a task now."""
        with self._lock:
            return sum(1 for task in self._tasks.values() if task.thread is not None)

    def __len__(self) -> int:
        return len(self._tasks)
