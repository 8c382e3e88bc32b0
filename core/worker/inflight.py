"""In-flight tasks: tasks that this process has received, and whose outcomes are not saved yet.

The heartbeat renews their leases.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from core.ledger.outcomes import Dispatch, LeaseKey
from core.limits.budgets import UnitRequest

REMEMBERED = 4096
"""The number of finished dispatches whose keys are kept, to refuse a second delivery."""

LANE_SECONDS = 0.5
"""Seconds that a suspect waits for another one to be saved, before it is requeued."""


Grant = tuple[float, Sequence[UnitRequest]]


@dataclass(slots=True)
class InflightTask:
    """One dispatch in this process.

    Attributes:
      thread: The thread that runs the task; None before it starts, and while its outcome is saved.
      started: True if a thread has started the task, or if the message is a result.
      deadline: The time after which the lease is not renewed, by `time.monotonic`.
      changed: The time at which it was received or started, by `time.monotonic`.
      withdrawn: True if no thread may start the task, because it is being returned.
      stopping: True if the task should return early, because its account was stopped.
      grant: The time until which the units of its budgets are good, by `time.monotonic`, and the
        requests for them; None if it took none.
      report: The latest report of its progress that is not recorded yet: the units done, and in
        total.
    """

    dispatch: Dispatch
    thread: threading.Thread | None = None
    started: bool = False
    deadline: float = float("inf")
    changed: float = field(default_factory=time.monotonic)
    withdrawn: bool = False
    stopping: bool = False
    grant: Grant | None = None
    report: tuple[int, int | None] | None = None


class InflightTasks:
    """The in-flight tasks of a process, thread-safe.

    Attributes:
      on_end: Receives the user of a task that leaves its thread, and the seconds that it held it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lane_free = threading.Condition(self._lock)
        self._tasks: dict[LeaseKey, InflightTask] = {}
        self._running: dict[LeaseKey, InflightTask] = {}
        self._done: OrderedDict[LeaseKey, None] = OrderedDict()
        self._suspect: LeaseKey | None = None
        self.on_end: Callable[[str, float], None] = lambda _user, _seconds: None

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
            if dispatch.lease in self._tasks or dispatch.lease in self._done:
                return False
            self._tasks[dispatch.lease] = InflightTask(dispatch, started=started)
            return True

    def start(self, dispatch: Dispatch, seconds: float) -> bool:
        """Start a dispatch that was received, in this thread.

        Args:
          dispatch: The dispatch.
          seconds: The time for which its lease is renewed, unless `finish` is called before.

        Returns:
          False if the dispatch was returned, or if another thread runs it or has run it.
        """
        with self._lock:
            task = self._tasks.get(dispatch.lease)
            if task is None or task.started or task.withdrawn:
                return False
            task.started, task.thread = True, threading.current_thread()
            task.changed = time.monotonic()
            task.deadline = task.changed + seconds
            self._running[dispatch.lease] = task
            return True

    def finish(self, dispatch: Dispatch) -> None:
        """Record that a dispatch has left its thread. Its outcome is still to be saved."""
        with self._lock:
            task = self._tasks.get(dispatch.lease)
            self._leave_thread(dispatch.lease)
            if task is not None:
                task.thread, task.deadline = None, float("inf")
            # A suspect keeps its slot until its outcome is saved. Otherwise, the death of the next
            # suspect would count against it too.

    def keep_grant(self, dispatch: Dispatch, grant: Grant) -> None:
        """Keep the units that a running task has taken."""
        with self._lock:
            if (task := self._running.get(dispatch.lease)) is not None:
                task.grant = grant

    def grant(self, dispatch: Dispatch) -> Grant | None:
        """Return the units that a running task has taken."""
        with self._lock:
            task = self._running.get(dispatch.lease)
            return task.grant if task is not None else None

    def _leave_thread(self, key: LeaseKey) -> None:
        if (task := self._running.pop(key, None)) is not None:
            self.on_end(task.dispatch.user, time.monotonic() - task.changed)

    def report(self, dispatch: Dispatch, done: int, total: int | None) -> None:
        """Keep a running task's report of its progress until `take_reports`."""
        with self._lock:
            task = self._running.get(dispatch.lease)
            if task is not None:
                task.report = (done, total)

    def take_reports(self) -> dict[LeaseKey, tuple[int, int | None]]:
        """Return the latest reports of running tasks since the last call."""
        with self._lock:
            reports = {
                key: task.report for key, task in self._running.items() if task.report is not None
            }
            for key in reports:
                self._running[key].report = None
            return reports

    def has_other_than(self, type: str) -> bool:
        """Return True if a task of another type is in flight."""
        with self._lock:
            return any(task.dispatch.type != type for task in self._tasks.values())

    def release(self, dispatches: Iterable[Dispatch], *, done: bool = True) -> None:
        """Remove dispatches.

        Args:
          dispatches: The dispatches.
          done: True if their outcomes are saved, so that further deliveries are refused. False if
            they may be received again. Default: True.
        """
        with self._lock:
            for dispatch in dispatches:
                key = dispatch.lease
                self._tasks.pop(key, None)
                self._leave_thread(key)
                self._leave_suspect_lane(key)
                if done:
                    self._done[key] = None
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
                self._suspect = dispatch.lease
            return self._suspect == dispatch.lease

    def _leave_suspect_lane(self, key: LeaseKey) -> None:
        if self._suspect == key:
            self._suspect = None
            self._lane_free.notify()

    def active_leases(self) -> list[LeaseKey]:
        """Return the (task, dispatch_no, token) of each lease to renew.

        The leases of tasks whose thread died or whose deadline has passed are left to expire.
        """
        now = time.monotonic()
        with self._lock:
            return [
                task.dispatch.lease
                for task in self._tasks.values()
                if task.deadline > now and (task.thread is None or task.thread.is_alive())
            ]

    def ids(self) -> list[str]:
        """Return the ids of the messages of all in-flight tasks."""
        with self._lock:
            return [task.dispatch.id for task in self._tasks.values()]

    def orphaned(self) -> list[Dispatch]:
        """Return the tasks whose thread died while it ran them."""
        with self._lock:
            return [
                task.dispatch
                for task in self._tasks.values()
                if task.thread is not None and not task.thread.is_alive()
            ]

    def withdraw(
        self,
        seconds: float = 0.0,
        stalled_seconds: float = float("inf"),
        new_user_seconds: float = float("inf"),
    ) -> list[Dispatch]:
        """Withdraw tasks that no thread has started, so that no thread starts them any more.

        Their leases are renewed until `release`.

        Args:
          seconds: The minimum time since a task was received. Default: 0, all of them.
          stalled_seconds: The same, if threads run tasks and have started none in this time.
            Default: `seconds` applies.
          new_user_seconds: The same as `stalled_seconds`, for tasks whose user holds no thread of
            this process. Default: `stalled_seconds` applies.

        Returns:
          The withdrawn tasks, including those of earlier calls.
        """
        now = time.monotonic()
        with self._lock:
            latest = max((task.changed for task in self._running.values()), default=float("inf"))
            users = {task.dispatch.user for task in self._running.values()}
            for task in self._tasks.values():
                is_new = task.dispatch.user not in users
                sooner = min(stalled_seconds, new_user_seconds if is_new else float("inf"))
                is_stalled = latest <= now - sooner
                limit = now - (min(seconds, sooner) if is_stalled else seconds)
                task.withdrawn |= not task.started and task.changed <= limit
            return [task.dispatch for task in self._tasks.values() if task.withdrawn]

    def stop(self, account_ids: Collection[str]) -> None:
        """Ask all tasks of these accounts to return early."""
        if not account_ids:
            return
        with self._lock:
            for task in self._tasks.values():
                task.stopping |= task.dispatch.account_id in account_ids

    def is_stopping(self, dispatch: Dispatch) -> bool:
        """Return True if a task should return early."""
        task = self._tasks.get(dispatch.lease)
        return task is not None and task.stopping

    def busy(self, domain: str, seconds: float) -> tuple[int, int]:
        """Count the threads that have run their task for longer than `seconds`.

        Returns:
          The number of tasks of this domain, and of all other domains.
        """
        limit = time.monotonic() - seconds
        with self._lock:
            if not self._running:
                return 0, 0
            slow = [task.dispatch.domain for task in self._running.values() if task.changed < limit]
        return slow.count(domain), len(slow) - slow.count(domain)

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
