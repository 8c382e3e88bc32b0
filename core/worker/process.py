"""What one worker process is made of, and its heartbeat."""

from __future__ import annotations

import faulthandler
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from core.accounts.redaction import operator_redactor
from core.accounts.vault import Vault
from core.content.blobs import Blobs, clean_spool
from core.db.pool import UNAVAILABLE, Database, first_line
from core.environment import Environment
from core.ledger import leadership, leases, upkeep
from core.ledger.outcomes import Dispatch
from core.messages import SAVE_QUEUE
from core.plugins import Registry, catalog
from core.queues import UNAVAILABLE as REDIS_UNAVAILABLE
from core.queues import Queues
from core.settings import Settings
from core.worker.accounts import Accounts
from core.worker.budgets import Budgets
from core.worker.context import Services
from core.worker.courier import Courier
from core.worker.figures import Figures
from core.worker.held import Held
from core.worker.instances import Instances
from core.worker.running import Runner
from core.worker.saver import Saver

HEARTBEAT_SECONDS = 5.0

SHORTEST_PATIENCE_SECONDS = 5.0
"""Seconds that Python may hang before the process is ended, unless its leases are shorter."""

log = logging.getLogger(__name__)


class WorkerProcess:
    """Everything a process shares between its threads.

    Parameters:
      threads: How many worker threads it has.
      serves: The queues it consumes.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Environment,
        queues: Queues,
        registry: Registry,
        *,
        threads: int,
        serves: Sequence[str],
    ) -> None:
        self.settings = settings
        self.queues = queues
        self.registry = registry
        self.threads = threads
        self.database = Database(environment.database_url, size=threads + 4)
        self.held = Held()
        self.instances = Instances()
        self.accounts = Accounts(
            self.database, Vault(environment.secret_keys), registry, settings.limits
        )
        self.budgets = Budgets(queues, self._first_budgets)
        self.figures = Figures()
        self.saver = Saver(
            self.database,
            queues,
            self.held,
            registry,
            delete_guard=settings.delete_guard,
            figures=self.figures,
        )
        # Where this process does not serve the saving queue, results travel there as messages.
        self.hand_over = self.saver.hand_over
        self.stopping = threading.Event()
        self.draining = threading.Event()
        self.blobs = Blobs(self.database, settings.blob_location, settings.home / "spool")
        if SAVE_QUEUE not in serves:
            self.hand_over = Courier(queues, self.held, self.blobs).hand_over
        services = Services(
            self.database,
            self.accounts,
            self.blobs,
            self.budgets,
            self.stopping.is_set,
            settings.allow_private_hosts,
        )
        self.runner = Runner(services, self.instances, registry)
        self._process = upkeep.Process(
            uuid4(), "worker", socket.gethostname(), os.getpid(), list(serves), threads
        )
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._registered = False
        self._began = time.monotonic()
        self.on_vacancy: Callable[[], None] = lambda: None
        self.on_drain: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to save and to renew leases."""
        self.saver.start()
        self._heart.start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        threading.Thread(target=self._close_idle, name="closer", daemon=True).start()
        clean_spool(self.settings.home / "spool")

    def stop(self, timeout: float = 60.0) -> None:
        """Save what was handed over, give back what was not begun, and say goodbye."""
        self.stopping.set()
        self.saver.stop(timeout)
        try:
            self.give_back(self.held.not_begun())
            with self.database.connection() as conn:
                upkeep.goodbye(conn, self._process.id)
            self._note_activity()
        except UNAVAILABLE as error:
            log.warning(
                "PostgreSQL is away at shutdown; leases bring back what was not begun: %s", error
            )
        self._ended.set()
        self._heart.join(timeout=5)
        closer = threading.Thread(target=self.instances.close_idle, args=(0.0,), daemon=True)
        closer.start()
        closer.join(timeout=5)
        self.database.close()

    def give_back(self, dispatches: Sequence[Dispatch]) -> None:
        """Taken and not begun: ready again, for whoever comes next."""
        if not dispatches:
            return
        with self.database.connection() as conn:
            leases.give_back(
                conn, [(dispatch.task_id, dispatch.dispatch_no) for dispatch in dispatches]
            )
        self.held.release((dispatch.id for dispatch in dispatches), finished=False)
        by_queue: dict[str, list[str]] = {}
        for dispatch in dispatches:
            by_queue.setdefault(dispatch.domain, []).append(dispatch.id)
        try:
            self.queues.ack(by_queue, wake=True)
        except REDIS_UNAVAILABLE as error:
            log.warning("Redis is away; the leader clears what was given back: %s", error)

    def _watch(self) -> None:
        """End this process if Python hangs, as in a C loop that never releases the GIL.

        The timer runs outside of the interpreter, so it goes off when this thread could not set it
        anew. By then the leases of what this process held have run out; whoever supervises it
        starts another one.
        """
        patience = max(self.settings.lease_seconds, SHORTEST_PATIENCE_SECONDS)
        while True:
            faulthandler.dump_traceback_later(patience, exit=True, file=2)
            if self._ended.wait(1.0):
                break
        faulthandler.cancel_dump_traceback_later()

    def _close_idle(self) -> None:
        """Close idle instances apart from the heartbeat.

        A plugin's `close` must not delay the renewal of leases.
        """
        while not self._ended.wait(0.5):
            self.instances.close_idle()

    def _beat(self) -> None:
        pause = min(HEARTBEAT_SECONDS, self.settings.lease_seconds / 3)
        renewed = beaten = 0.0
        while not self._ended.wait(min(0.5, pause)):
            now = time.monotonic()
            try:
                if now - renewed >= self.settings.lease_seconds / 3:
                    self._renew()
                    renewed = now
                if now - beaten >= (1.0 if self.draining.is_set() else HEARTBEAT_SECONDS):
                    self._say_alive()
                    beaten = now
            except UNAVAILABLE as error:
                log.warning("PostgreSQL is away: %s", error)
            except Exception:
                log.exception("the heartbeat failed; it goes on")
            if not self.saver.alive or self.saver.stuck:
                why = "stands still" if self.saver.alive else "has died"
                log.critical(
                    "the saver %s: this process ends, and its leases bring back what it held", why
                )
                os._exit(1)

    def _renew(self) -> None:
        held = self.held.to_renew()
        if held:
            with self.database.connection() as conn:
                leases.renew(conn, held, self.settings.lease_seconds)

    def _say_alive(self) -> None:
        with self.database.connection() as conn:
            if not self._registered:
                upkeep.register(conn, catalog(self.registry))
                self._registered = True
            # A worker that drains says that it serves nothing as soon as it holds nothing: then it
            # may be stopped.
            process = (
                replace(self._process, queues=[])
                if self.draining.is_set() and not len(self.held)
                else self._process
            )
            asked = upkeep.heartbeat(conn, process, datetime.now(UTC), self.figures.written())
            if time.monotonic() - self._began > leadership.VACANT_SECONDS and leadership.vacant(
                conn
            ):
                self.on_vacancy()
        if asked and not self.draining.is_set():
            self.draining.set()
            self.on_drain()
        self._note_activity()

    def _note_activity(self) -> None:
        """For plots: nothing that matters waits for it, or fails with it."""
        told = self.figures.activity()
        if not any(told):
            return
        try:
            with self.database.connection() as conn:
                upkeep.note_activity(conn, *told)
        except Exception as error:  # noqa: BLE001
            self.figures.not_told(*told)
            log.warning("what was done is not noted for the dashboard yet: %s", first_line(error))

    def _first_budgets(self) -> bool:
        with self.database.connection() as conn:
            return leadership.start_budgets(conn)


_current: WorkerProcess | None = None


def current() -> WorkerProcess:
    """The worker of this process. Only code that runs in a worker may ask."""
    assert _current is not None, "this process runs no worker"
    return _current


def set_current(process: WorkerProcess | None) -> None:
    """Called when the worker of this process starts, and when it ends."""
    global _current
    _current = process


def striking(environment: Environment, registry: Registry) -> Callable[[str], str]:
    """Redact the secrets of the operator, and of each account that this process loaded."""
    operators = operator_redactor(environment, registry)

    def strike(text: str) -> str:
        return operators(_current.accounts.strike(text) if _current is not None else text)

    return strike


def taking_nothing() -> bool:
    """Whether the worker of this process stops or drains; without a worker, no."""
    return _current is not None and (_current.stopping.is_set() or _current.draining.is_set())
