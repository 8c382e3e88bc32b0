"""The lifecycle of a worker process and of its dispatcher."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from queue import PriorityQueue

from dramatiq import Broker, Worker
from dramatiq.common import iter_queue
from dramatiq.middleware import Middleware
from dramatiq.worker import WorkerThread

from core import observability
from core.db.pool import DATABASE_UNAVAILABLE
from core.environment import leave_environment
from core.errors import PollingError
from core.ledger.outcomes import Dispatch
from core.middleware.base import give_up
from core.transport.messages import EXTRACT_QUEUE, OWN_THREADS
from core.worker.garbage import exclude_loaded
from core.worker.process import WorkerProcess

STOP_SECONDS = 15.0
"""Seconds to wait for a thread of a tick or a delivery at shutdown."""

log = logging.getLogger(__name__)


class Lifecycle(Middleware):
    """A middleware that opens the worker process at its boot, and closes it at its shutdown.

    The saver saves every outcome before the broker is closed. Without this middleware, no result
    would be saved, and no task dispatched.

    Args:
      process: The worker process, not yet open.
      dispatcher: The main function of the dispatcher; a fork of the worker command runs it.
      in_thread: Runs the dispatcher in a thread of this process, until the event is set. It is
        called when no dispatcher leads the fleet.
    """

    def __init__(
        self,
        process: WorkerProcess,
        dispatcher: Callable[[], int],
        in_thread: Callable[[threading.Event], None],
    ) -> None:
        self._process = process
        self._dispatcher = dispatcher
        self._in_thread = in_thread
        self._stand_in: threading.Thread | None = None
        self._own_threads: list[tuple[str, WorkerThread]] = []
        self._stop = threading.Event()

    @property
    def forks(self) -> list[Callable[[], int]]:
        """The functions for which Dramatiq forks processes."""
        return [self._dispatcher]

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Open the process; exit if that fails.

        Dramatiq alone would log the error, and fetch messages that this process cannot run.
        """
        try:
            self._open(broker, worker)
        except Exception as error:
            log.critical(
                "this worker process cannot start: %s",
                error,
                exc_info=not isinstance(error, PollingError),
            )
            sys.exit(1)

    def _open(self, broker: Broker, worker: Worker) -> None:
        worker.work_queue = self._process.work_queue  # type: ignore[assignment]  # Dramatiq's has priorities
        self._process.on_vacancy = self._lead
        self._process.on_release = lambda dispatches: self._leave(worker, dispatches)
        self._process.on_drain = lambda: threading.Thread(
            target=self._drain, args=(worker,), name="drain", daemon=True
        ).start()
        self._process.on_undo = lambda: self._undo_drain(worker)
        serves = sorted(worker.consumer_whitelist or {*broker.get_declared_queues(), EXTRACT_QUEUE})
        self._process.open(threads=worker.worker_threads, serves=serves)
        exclude_loaded()

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Start the threads of `OWN_THREADS`, so that ticks and deliveries never wait for tasks."""
        for queue, threads in OWN_THREADS.items():
            consumer = worker.consumers.get(queue)
            if consumer is None:
                continue
            consumer.work_queue = PriorityQueue()
            for _ in range(threads):
                thread = WorkerThread(
                    broker=broker,
                    consumers=worker.consumers,
                    work_queue=consumer.work_queue,
                    worker_timeout=worker.worker_timeout,
                )
                self._own_threads.append((queue, thread))
                thread.start()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Stop receiving messages, release unstarted tasks, and wake threads that wait."""
        self._process.stopping.set()
        self._process.saver.release_waiters()
        self._process.admission.release_waiters()
        for _, thread in self._own_threads:
            thread.stop()
        try:
            self._process.return_unstarted()
        except DATABASE_UNAVAILABLE as error:
            log.warning(
                "could not release tasks yet; retrying before this process exits: %s", error
            )

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Save all outcomes, and close the process and its dispatcher thread."""
        for queue, thread in self._own_threads:
            thread.join(timeout=STOP_SECONDS)
            left = [item.message for item in iter_queue(thread.work_queue)]  # type: ignore[no-untyped-call]
            worker.consumers[queue].requeue_messages(left)
        self._process.close()
        self._stop.set()
        if self._stand_in is not None:
            self._stand_in.join(timeout=10)
        observability.stop()
        leave_environment()

    def _leave(self, worker: Worker, dispatches: Sequence[Dispatch]) -> None:
        """Free the places of tasks that were returned."""
        self._process.work_queue.discard({dispatch.id for dispatch in dispatches})
        give_up(worker, dispatches)

    def _lead(self) -> None:
        """Start a dispatcher thread: Dramatiq does not replace a fork that was killed."""
        if self._stand_in is None or not self._stand_in.is_alive():
            log.warning("no dispatcher is leading; starting one in this process")
            self._stand_in = threading.Thread(
                target=self._in_thread, args=(self._stop,), name="dispatcher", daemon=True
            )
            self._stand_in.start()

    def _drain(self, worker: Worker) -> None:
        """Stop receiving messages, and release tasks that have not started (`polling drain`).

        Running tasks finish. Draining lasts until the process exits, or until it is undone.
        """
        log.warning("drain requested; this process finishes its running tasks and receives no more")
        process = self._process
        process.draining.set()
        for thread in worker.workers:
            thread.pause()
        while process.draining.is_set() and (waiting := process.inflight.withdraw()):
            try:
                process.release(waiting)
            except DATABASE_UNAVAILABLE as error:
                log.warning("could not release tasks; retrying in 1 s: %s", error)
                time.sleep(1)

    def _undo_drain(self, worker: Worker) -> None:
        """Receive messages again (`polling drain --undo`)."""
        log.warning("the drain was undone; this process receives messages again")
        for thread in worker.workers:
            thread.resume()
