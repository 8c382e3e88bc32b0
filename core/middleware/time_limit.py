"""Time limits of tasks: first an exception in the thread, then a new thread in its place."""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dramatiq import Broker, Worker

from core.ledger.outcomes import Dispatch
from core.middleware.base import TaskMiddleware, give_up
from core.plugins import Registry
from core.results.signals import TimeLimitExceeded
from core.worker.inflight import InflightTasks

CHECK_SECONDS = 1.0
"""Seconds between two checks of all threads."""

RETURN_SECONDS = 10.0
"""Seconds that a thread has to return after the exception, before it is replaced.

A thread in a system call or a loop in C does not notice the exception.
"""

RENEWAL_SECONDS = 3 * RETURN_SECONDS
"""Seconds past its time limit for which a task's lease is renewed.

Its thread has returned or was replaced by then.
"""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Watched:
    dispatch: Dispatch
    thread: threading.Thread
    deadline: float
    running: bool = True
    fired: bool = False
    given_up: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class TimeLimit(TaskMiddleware):
    """A middleware that interrupts a task after its time limit, with `TimeLimitExceeded`.

    A thread that does not return within `RETURN_SECONDS` is replaced by a new one, so that its slot
    is not lost. Its task becomes a suspect when its lease expires. A worker thread that died is
    replaced as well. Without this middleware, a task that hangs would keep its thread and its lease
    forever.

    Args:
      inflight: The in-flight tasks of the process.
      registry: The integrations, with the time limits that task types declare.
      seconds: The time limit in seconds of a task whose type declares none
        (`POLLING_TASK_TIMEOUT_SECONDS`).
      stopping: Set when the process shuts down; then no thread is replaced.
    """

    def __init__(
        self,
        inflight: InflightTasks,
        registry: Registry,
        seconds: float,
        stopping: threading.Event,
    ) -> None:
        super().__init__(inflight)
        self._registry = registry
        self._seconds = seconds
        self._stopping = stopping
        self._watched: dict[int, _Watched] = {}
        self._worker: Worker | None = None
        self._clock = threading.Thread(target=self._watch, name="time-limit", daemon=True)

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Start to check threads."""
        self._worker = worker
        self._clock.start()

    def limit(self, dispatch: Dispatch) -> float:
        """Return the seconds that a task may run: its type's limit, or the operator's default."""
        integration = self._registry.integrations.get(dispatch.domain)
        spec = integration.task_specs.get(dispatch.type) if integration is not None else None
        return (
            spec.time_limit if spec is not None and spec.time_limit is not None else self._seconds
        )

    def renewal_seconds(self, dispatch: Dispatch) -> float:
        """Return the maximum number of seconds for which the lease of a started task is renewed."""
        return self.limit(dispatch) + RENEWAL_SECONDS

    def call(self, dispatch: Dispatch, run: Callable[[], None]) -> None:
        """Call `run` under the task's time limit.

        Raises:
          TimeLimitExceeded: The call exceeded the limit.
        """
        watched = _Watched(
            dispatch, threading.current_thread(), time.monotonic() + self.limit(dispatch)
        )
        ident = threading.get_ident()
        self._watched[ident] = watched
        try:
            try:
                run()
            finally:
                self._disarm(watched, ident)
        except TimeLimitExceeded:
            # The exception may interrupt the first disarming. It is raised only once.
            self._disarm(watched, ident)
            raise TimeLimitExceeded(
                f"over its time limit of {self.limit(dispatch):.0f} s"
            ) from None
        finally:
            self._watched.pop(ident, None)

    def _disarm(self, watched: _Watched, ident: int) -> None:
        with watched.lock:
            watched.running = False
            if watched.fired:
                _raise_in_thread(ident, None)

    def _watch(self) -> None:
        while True:
            time.sleep(CHECK_SECONDS)
            self._replace_dead()
            now = time.monotonic()
            for ident, watched in list(self._watched.items()):
                if now >= watched.deadline:
                    self._interrupt(ident, watched, now)

    def _interrupt(self, ident: int, watched: _Watched, now: float) -> None:
        with watched.lock:
            if watched.running and not watched.fired:
                watched.fired = True
                _raise_in_thread(ident, TimeLimitExceeded)
                return
        if watched.running and not watched.given_up and now >= watched.deadline + RETURN_SECONDS:
            watched.given_up = True
            self._replace(watched.thread, watched.dispatch)

    def _replace_dead(self) -> None:
        """Replace worker threads that died, which Dramatiq never does.

        The leases of their tasks are not renewed.
        """
        if self._worker is None or self._stopping.is_set():
            return
        for thread in [thread for thread in self._worker.workers if not thread.is_alive()]:
            log.error("worker thread %s has died; starting a new one", thread.name)
            self._worker.workers.remove(thread)
            self._worker._add_worker()
        for dispatch in self._inflight.orphaned():
            self._drop(dispatch)

    def _replace(self, thread: threading.Thread, dispatch: Dispatch) -> None:
        """Replace a stuck thread. It stops by itself if its task ever returns.

        The lease of its task is not renewed after the deadline.
        """
        log.error(
            "task %s (%s) hangs in %s; replacing the thread, and requeuing the task as a suspect",
            dispatch.task_id,
            dispatch.type,
            thread.name,
        )
        if (
            self._worker is not None
            and not self._stopping.is_set()
            and thread in self._worker.workers
        ):
            thread.stop()
            self._worker.workers.remove(thread)
            self._worker._add_worker()
        self._drop(dispatch)

    def _drop(self, dispatch: Dispatch) -> None:
        """Free the place of a task's message, and let its lease expire."""
        if self._worker is not None:
            give_up(self._worker, [dispatch])
        self._inflight.release([dispatch], done=False)


def _raise_in_thread(ident: int, exception: type[BaseException] | None) -> None:
    """Raise an exception in another thread at its next bytecode; None cancels a pending one."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident), ctypes.py_object(exception) if exception is not None else None
    )
