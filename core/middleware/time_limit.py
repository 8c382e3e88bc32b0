"""End a task that runs too long: first by an exception, then by abandoning its thread."""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dramatiq import Broker, Worker

from core.ledger.outcomes import Dispatch
from core.middleware.closed import TaskMiddleware
from core.worker.process import current

CHECK_SECONDS = 1.0

GRACE_SECONDS = 10.0
"""Seconds for a thread to return after the exception, which a system call or C loop ignores."""

log = logging.getLogger(__name__)


class TimeLimitExceeded(BaseException):
    """Raised in the thread of a task that is over its time limit.

    No `Exception`, so that plugins do not swallow it.
    """


@dataclass(slots=True)
class _Watched:
    dispatch: Dispatch
    thread: threading.Thread
    deadline: float
    running: bool = True
    fired: bool = False
    given_up: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


def time_limit_of(dispatch: Dispatch) -> float:
    """Seconds this task may run: its own, or the operator's default."""
    process = current()
    integration = process.registry.integrations.get(dispatch.domain)
    spec = integration.task_specs.get(dispatch.type) if integration is not None else None
    return (
        spec.time_limit
        if spec is not None and spec.time_limit is not None
        else process.settings.task_time_limit
    )


class TimeLimit(TaskMiddleware):
    """Replace a thread that does not return, to keep its slot; its task becomes a suspect."""

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}
        self._worker: Worker | None = None
        self._clock = threading.Thread(target=self._watch, name="time-limit", daemon=True)

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        self._worker = worker
        self._clock.start()

    def call(self, dispatch: Dispatch, run: Callable[[], None]) -> None:
        """Run something under the task's time limit.

        Raises:
          TimeLimitExceeded: It was over it.
        """
        watched = _Watched(
            dispatch, threading.current_thread(), time.monotonic() + time_limit_of(dispatch)
        )
        ident = threading.get_ident()
        self._watched[ident] = watched
        try:
            try:
                run()
            finally:
                self._disarm(watched, ident)
        except TimeLimitExceeded:
            # It may have come inside the first disarming; it comes only once.
            self._disarm(watched, ident)
            raise TimeLimitExceeded(
                f"over its time limit of {time_limit_of(dispatch):.0f} s"
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
        if watched.running and not watched.given_up and now >= watched.deadline + GRACE_SECONDS:
            watched.given_up = True
            self._replace(watched.thread, watched.dispatch)

    def _replace_dead(self) -> None:
        """Replace a worker thread that died, which Dramatiq never does.

        The lease of its task is not renewed.
        """
        if self._worker is None or current().stopping.is_set():
            return
        for thread in [thread for thread in self._worker.workers if not thread.is_alive()]:
            log.error("%s has died; a new thread takes its place", thread.name)
            self._worker.workers.remove(thread)
            self._worker._add_worker()
        for dispatch in current().held.left():
            self._forget(dispatch)

    def _replace(self, thread: threading.Thread, dispatch: Dispatch) -> None:
        """The stuck thread stops by itself if it ever comes back.

        Its lease is not renewed beyond the deadline.
        """
        log.error(
            "task %s (%s) hangs in %s; the thread is given up",
            dispatch.task_id,
            dispatch.type,
            thread.name,
        )
        if (
            self._worker is not None
            and not current().stopping.is_set()
            and thread in self._worker.workers
        ):
            thread.stop()
            self._worker.workers.remove(thread)
            self._worker._add_worker()
        self._forget(dispatch)

    def _forget(self, dispatch: Dispatch) -> None:
        """Its place among the messages taken is free; its lease runs out."""
        thread = self._worker.consumers.get(dispatch.domain) if self._worker is not None else None
        give_up = getattr(thread and thread.consumer, "give_up", None)
        if give_up is not None:
            give_up(dispatch.id)
        current().held.release([dispatch.id], finished=False)


def _raise_in_thread(ident: int, exception: type[BaseException] | None) -> None:
    """Raise in another thread at its next bytecode; None cancels an exception not yet raised."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident), ctypes.py_object(exception) if exception is not None else None
    )
