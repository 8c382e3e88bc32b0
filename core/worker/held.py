"""What this process holds: messages it has taken and whose outcome is not saved yet.

Their leases are renewed.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from core.ledger.outcomes import Dispatch

REMEMBERED = 4096
"""Ids of finished dispatches, to refuse a second delivery of them without asking anybody."""


LANE_SECONDS = 0.5
"""How long a suspect waits for the one before it, rather than to be put back."""


@dataclass(slots=True)
class Hold:
    """One dispatch in this process.

    Attributes:
      thread: That runs it; None while it waits, and again once it only has to be saved.
      deadline: By `time.monotonic`: after it, the lease is not renewed any more.
    """

    dispatch: Dispatch
    thread: threading.Thread | None = None
    started: bool = False
    deadline: float = float("inf")


class Held:
    """A registry, safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lane_free = threading.Condition(self._lock)
        self._holds: dict[str, Hold] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._suspect: str | None = None

    def take(self, dispatch: Dispatch, *, begun: bool = False) -> bool:
        """Register an arriving message; False if this process already holds or finished it.

        Parameters:
          begun: It is a result: there is nothing to run, and nothing to give back.
        """
        with self._lock:
            if dispatch.id in self._holds or dispatch.id in self._finished:
                return False
            self._holds[dispatch.id] = Hold(dispatch, started=begun)
            return True

    def begin(self, dispatch: Dispatch, time_limit: float) -> bool:
        """A thread is about to run it. False, if another one does or did."""
        with self._lock:
            hold = self._holds.setdefault(dispatch.id, Hold(dispatch))
            if hold.started or dispatch.id in self._finished:
                if dispatch.id in self._finished:
                    del self._holds[dispatch.id]
                return False
            hold.started, hold.thread, hold.deadline = (
                True,
                threading.current_thread(),
                time.monotonic() + time_limit,
            )
            return True

    def ran(self, dispatch: Dispatch) -> None:
        """Its thread is free; what came of it has to be saved yet."""
        with self._lock:
            hold = self._holds.get(dispatch.id)
            if hold is not None:
                hold.thread, hold.deadline = None, float("inf")
            # A suspect keeps its lane until it is saved: the next one's death would count against
            # it as well.

    def release(self, ids: Iterable[str], *, finished: bool = True) -> None:
        """They are saved, or given back (`finished=False`: they may come in again)."""
        with self._lock:
            for id in ids:
                self._holds.pop(id, None)
                self._leave_suspect_lane(id)
                if finished:
                    self._finished[id] = None
            while len(self._finished) > REMEMBERED:
                self._finished.popitem(last=False)

    def enter_suspect_lane(self, dispatch: Dispatch) -> bool:
        """Only one suspect runs in a process at a time, so that a death convicts the right one."""
        with self._lock:
            self._lane_free.wait_for(lambda: self._suspect is None, LANE_SECONDS)
            if self._suspect is None:
                self._suspect = dispatch.id
            return self._suspect == dispatch.id

    def _leave_suspect_lane(self, id: str) -> None:
        if self._suspect == id:
            self._suspect = None
            self._lane_free.notify()

    def to_renew(self) -> list[tuple[int, int]]:
        """(task, dispatch_no) of tasks with a live thread and before their deadline."""
        now = time.monotonic()
        with self._lock:
            return [
                (hold.dispatch.task_id, hold.dispatch.dispatch_no)
                for hold in self._holds.values()
                if hold.deadline > now and (hold.thread is None or hold.thread.is_alive())
            ]

    def left(self) -> list[Dispatch]:
        """What threads had begun that are dead."""
        with self._lock:
            return [
                hold.dispatch
                for hold in self._holds.values()
                if hold.thread is not None and not hold.thread.is_alive()
            ]

    def not_begun(self) -> list[Dispatch]:
        """What was taken and no thread has begun."""
        with self._lock:
            return [hold.dispatch for hold in self._holds.values() if not hold.started]

    @property
    def runs(self) -> set[str]:
        """The runs of all that this process holds."""
        with self._lock:
            return {hold.dispatch.run_id for hold in self._holds.values()}

    @property
    def running(self) -> int:
        """How many threads run a task now."""
        with self._lock:
            return sum(1 for hold in self._holds.values() if hold.thread is not None)

    def __len__(self) -> int:
        return len(self._holds)
