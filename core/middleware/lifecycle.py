"""Starts and stops what a worker process is made of, and brings the dispatcher along."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable

from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware

from core import observing
from core.db.pool import UNAVAILABLE
from core.environment import Environment, leave_environment
from core.errors import PollingError
from core.plugins import get_registry
from core.queues import Queues
from core.settings import Settings
from core.worker.process import WorkerProcess, current, set_current

log = logging.getLogger(__name__)


class Lifecycle(Middleware):
    """Drain the saver at shutdown.

    It runs after the last worker thread has ended and before the broker is closed.

    Parameters: dispatcher: Run by a fork of the worker command; and by a thread of this process, if
      nobody leads.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Environment,
        queues: Queues,
        dispatcher: Callable[[], int],
        in_thread: Callable[[threading.Event], None],
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._queues = queues
        self._dispatcher = dispatcher
        self._in_thread = in_thread
        self._stand_in: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def forks(self) -> list[Callable[[], int]]:
        return [self._dispatcher]

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """End a process that cannot begin.

        Dramatiq would log the error, and fetch messages that this process cannot run.
        """
        try:
            self._begin(broker, worker)
        except Exception as error:
            log.critical(
                "this worker process cannot begin: %s",
                error,
                exc_info=not isinstance(error, PollingError),
            )
            sys.exit(1)

    def _begin(self, broker: Broker, worker: Worker) -> None:
        serves = sorted(worker.consumer_whitelist or broker.get_declared_queues())
        process = WorkerProcess(
            self._settings,
            self._environment,
            self._queues,
            get_registry(),
            threads=worker.worker_threads,
            serves=serves,
        )
        process.on_vacancy = self._lead
        process.on_drain = lambda: threading.Thread(
            target=_drain, args=(worker,), name="drain", daemon=True
        ).start()
        set_current(process)
        process.start()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Take nothing more, give back what has not begun, and let no thread wait for room."""
        process = current()
        process.stopping.set()
        process.saver.release_waiters()
        try:
            process.give_back(process.held.not_begun())
        except UNAVAILABLE as error:
            log.warning("PostgreSQL is away: %s", error)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        current().stop()
        self._stop.set()
        if self._stand_in is not None:
            self._stand_in.join(timeout=10)
        set_current(None)
        observing.end()
        leave_environment()

    def _lead(self) -> None:
        """Nobody leads: the dispatcher was killed, and its parent does not replace it."""
        if self._stand_in is None or not self._stand_in.is_alive():
            log.warning("nobody dispatches; this process does it from now on, in a thread")
            self._stand_in = threading.Thread(
                target=self._in_thread, args=(self._stop,), name="dispatcher", daemon=True
            )
            self._stand_in.start()


def _drain(worker: Worker) -> None:
    """`polling drain`: take nothing more, finish what runs, and give back what has not begun.

    Lasts until the process ends.
    """
    log.warning("asked to drain: this process takes no more tasks")
    process = current()
    process.draining.set()
    for thread in worker.workers:
        thread.pause()
    while process.held.not_begun():
        try:
            process.give_back(process.held.not_begun())
        except UNAVAILABLE as error:
            log.warning("PostgreSQL is away: %s", error)
            time.sleep(1)
