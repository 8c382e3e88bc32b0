"""The parts of a worker process, and its heartbeat."""

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

from core.accounts.redaction import describe_redis, remember_operator
from core.accounts.vault import Vault
from core.content.blobs import Blobs, clean_spool
from core.db.clocks import HEARTBEAT_SECONDS
from core.db.errors import describe
from core.db.pool import DATABASE_UNAVAILABLE, Database
from core.egress import Egress
from core.environment import Environment
from core.integration.base import REREAD
from core.ledger import leadership, leases, limit_overrides, processes
from core.ledger.outcomes import Dispatch, Outcome
from core.ledger.use import add_use
from core.limits.budgets import Budgets
from core.metrics.counters import Counters
from core.plugins import Registry, catalog, reader_version
from core.results.delete_guard import DeleteGuard
from core.settings import Settings
from core.transport.messages import SAVE_QUEUE
from core.transport.queues import REDIS_UNAVAILABLE, Queues
from core.worker import grants
from core.worker.accounts import Accounts
from core.worker.admission import Admission
from core.worker.context import Services
from core.worker.deliveries.deliverer import Deliverer
from core.worker.deliveries.sender import Sender
from core.worker.documents import DocumentReader
from core.worker.inflight import InflightTasks
from core.worker.instance_pool import InstancePool
from core.worker.listening import Listening
from core.worker.members import Members
from core.worker.reserve import Reserve
from core.worker.result_messages import ResultForwarder
from core.worker.runner import Runner
from core.worker.saver import Saver
from core.worker.slots import AccountSlots
from core.worker.work_queue import WorkQueue

PROGRESS_SECONDS = 1.0
"""Seconds between two records of the progress that tasks report."""

MAX_WAIT_SECONDS = 1.0
"""Seconds after which a task that no thread has started is left to other processes.

A process fetches no more than its threads start within a second, judged by its latest tasks. A task
that waits longer is behind slower ones, which may take minutes.
"""

STALLED_SECONDS = 0.5
"""The same, in a process whose threads have started no task in this time.

Its tasks are slow, and it fetched the others before that was known.
"""

NEW_USER_SECONDS = 0.2
"""The same, for the tasks of users that hold no thread of the process.

Other processes may have a thread for them. Slow tasks of one user end together, so its own next
tasks wait longer.
"""

BEAT_SECONDS = 0.25
"""The interval of the thread that renews leases and returns tasks, in seconds."""

RELEASE_SECONDS = 3.0
"""Seconds to wait for a connection that returns tasks. Without one, their leases expire."""

MIN_STALL_SECONDS = 5.0
"""The minimum time in seconds that Python may hang before the process is ended.

If a lease is longer, its length applies.
"""

log = logging.getLogger(__name__)


class WorkerProcess:
    """The objects that all threads of a worker process share.

    The constructor opens no connection and starts no thread; `open` does.

    Args:
      settings: The operator's settings.
      environment: The URLs of the servers, and the keys of the vault.
      queues: The queues in Redis.
      registry: The installed integrations.

    Raises:
      SettingsError: A secret key is not valid.
    """

    def __init__(
        self, settings: Settings, environment: Environment, queues: Queues, registry: Registry
    ) -> None:
        remember_operator(environment, registry)
        vault = Vault(environment.secret_keys)
        self._fingerprints = vault.fingerprints
        self.settings = settings
        self.queues = queues
        self.registry = registry
        self.database = Database(environment.database_url)
        self.database.on_disk_full = queues.note_disk_full
        self.inflight = InflightTasks()
        self.egress = Egress(allow_private_hosts=settings.allow_private_hosts)
        self.slots = AccountSlots(environment.database_url)
        self.reserve = Reserve()
        self.work_queue = WorkQueue(self.reserve)
        self.instances = InstancePool(self.egress, self.slots)
        self.accounts = Accounts(self.database, vault, registry, settings.limits)
        self.admission = Admission(environment.database_url, self.inflight, self.accounts)
        self.admission.on_lost = self._leave
        self.admission.on_cut_off = self._return_unstarted_to_redis
        self.budgets = Budgets(queues.client, queues.key, self._first_budgets, queues.run_first)
        self.counters = Counters()
        self.inflight.on_end = self.counters.use.ran
        self.saver = Saver(
            self.database,
            queues,
            self.inflight,
            registry,
            guard=DeleteGuard(settings.max_deleted_share, settings.min_guarded_items),
            counters=self.counters,
        )
        self._send = self.saver.hand_over
        self.stopping = threading.Event()
        self.draining = threading.Event()
        self.blobs = Blobs(self.database, settings.blob_location, settings.home / "spool")
        services = Services(
            self.database,
            self.accounts,
            self.blobs,
            self.budgets,
            lambda dispatch: self.stopping.is_set() or self.inflight.is_stopping(dispatch),
            self.egress,
            self.admission.check,
            lambda: self.inflight.has_other_than(REREAD),
            self.inflight.report,
            lambda dispatch: grants.renew(self.inflight, self.budgets, dispatch),
        )
        self.runner = Runner(services, self.instances, registry)
        self.listening = Listening(self.database, queues, registry, self.egress, self.accounts)
        self.documents = DocumentReader(self.database, self.blobs)
        self._sender = Sender(self.egress)
        self.deliverer = Deliverer(self.database, vault, self._sender, self.stopping.is_set)
        self.members = Members(self.database, self.accounts.vault, registry, self.egress)
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._registered = False
        self._shortest_lease = settings.lease_seconds
        self._renewed = self._beaten = self._recorded = 0.0
        self.on_release: Callable[[Sequence[Dispatch]], None] = lambda _: None
        self.on_vacancy: Callable[[], None] = lambda: None
        self.on_drain: Callable[[], None] = lambda: None
        self.on_undo: Callable[[], None] = lambda: None

    def open(self, *, threads: int, serves: Sequence[str]) -> None:
        """Start saving results and renewing leases.

        Args:
          threads: The number of worker threads.
          serves: The queues that this process consumes.
        """
        self._assign(threads, serves)
        self.saver.start()
        self._heart.start()
        self.admission.open(self._process.id)
        self.listening.open(self._process.id, serves, lambda: not self.accepting())
        self.members.open(serves)
        self.documents.open(serves, self.accepting)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        threading.Thread(target=self._close_idle, name="closer", daemon=True).start()
        clean_spool(self.settings.home / "spool")

    def _assign(self, threads: int, serves: Sequence[str]) -> None:
        self._began = time.monotonic()
        self._process = processes.Process(
            uuid4(),
            "worker",
            socket.gethostname(),
            os.getpid(),
            list(serves),
            threads,
            self._fingerprints,
            {
                domain: reader_version(integration)
                for domain, integration in self.registry.integrations.items()
            },
            self.settings.lease_seconds,
        )
        self.reserve.open(threads)
        self.database.resize(threads + 5)
        if SAVE_QUEUE not in serves:
            self._send = ResultForwarder(self.queues, self.inflight, self.blobs).hand_over

    def hand_over(self, outcome: Outcome) -> None:
        """Hand the outcome of a task to the saver of this process.

        If this process does not serve the queue of `save_output`, send the outcome there as a
        message.
        """
        self._send(outcome)

    def accepting(self) -> bool:
        """Return True unless this process is stopping, draining, or cut off from PostgreSQL."""
        return not (self.stopping.is_set() or self.draining.is_set() or self.admission.cut_off)

    def recognizes(self, nonce: int) -> bool:
        """Return True if a leader of this ledger has marked Redis with this nonce."""
        try:
            with self.database.connection() as conn:
                return nonce in leadership.nonces(conn)
        except DATABASE_UNAVAILABLE:
            return False

    def close(self, timeout: float = 60.0) -> None:
        """Save all outcomes, release tasks that have not started, and deregister this process.

        Args:
          timeout: The time in seconds that saving may take.
        """
        self.stopping.set()
        self.listening.close()
        self.members.close()
        self.documents.close()
        self._sender.close()
        self.saver.stop(timeout)
        self.admission.close()
        try:
            self.return_unstarted()
            with self.database.connection(RELEASE_SECONDS) as conn:
                processes.deregister(conn, self._process.id)
            self._record_throughput()
            self._record_use()
        except DATABASE_UNAVAILABLE as error:
            log.warning(
                "PostgreSQL is unavailable at shutdown; tasks that have not started are requeued"
                " when their leases expire: %s",
                error,
            )
        self._ended.set()
        self._heart.join(timeout=5)
        closer = threading.Thread(target=self.instances.close_idle, args=(0.0,), daemon=True)
        closer.start()
        closer.join(timeout=5)
        self.database.close()

    def return_to_redis(self, dispatches: Sequence[Dispatch]) -> bool:
        """Return tasks that have not started to their queues in Redis, under the same dispatch.

        This process cannot reach PostgreSQL, but others may. The leader renews the leases of
        messages that wait in Redis.

        Returns:
          False if Redis does not answer. Then this process keeps the tasks.
        """
        if not dispatches:
            return True
        if not self.queues.answers():
            return False
        self.inflight.release(dispatches, done=False)
        self.on_release(dispatches)
        try:
            for queue, ids in _by_queue(dispatches).items():
                self.queues.requeue(queue, ids)
        except REDIS_UNAVAILABLE as error:
            log.warning(
                "could not return %d tasks to Redis; they are requeued when their leases expire:"
                " %s",
                len(dispatches),
                describe_redis(error),
            )
        return True

    def _return_unstarted_to_redis(self) -> None:
        self.return_to_redis(self.inflight.withdraw())

    def return_unstarted(self) -> None:
        """Return tasks that have not started to the ledger; without PostgreSQL, to Redis.

        Raises:
          ServerUnavailable: PostgreSQL does not answer, and the leases of the tasks expire.
        """
        unstarted = self.inflight.withdraw()
        if not (self.admission.cut_off and self.return_to_redis(unstarted)):
            self.release(unstarted)

    def release(self, dispatches: Sequence[Dispatch]) -> None:
        """Return withdrawn tasks to `ready`, and delete their messages."""
        if not dispatches:
            return
        with self.database.connection(RELEASE_SECONDS) as conn:
            leases.release(conn, [dispatch.lease for dispatch in dispatches])
        self.inflight.release(dispatches, done=False)
        self.on_release(dispatches)
        try:
            self.queues.ack(_by_queue(dispatches), wake=True)
        except REDIS_UNAVAILABLE as error:
            log.warning(
                "Redis is unavailable; the leader removes the messages of %d released tasks: %s",
                len(dispatches),
                describe_redis(error),
            )

    def _leave(self, dispatches: Sequence[Dispatch]) -> None:
        """Leave withdrawn tasks to other processes, whose messages the leader has sent again."""
        self.inflight.release(dispatches, done=False)
        self.on_release(dispatches)

    def _watch(self) -> None:
        """End this process if Python hangs, as in a C loop that never releases the GIL.

        This thread resets a timer that runs outside the interpreter. If the thread hangs too, the
        timer ends the process. By then, the leases of its tasks have expired. Its supervisor starts
        a new process.
        """
        patience = max(self.settings.lease_seconds, MIN_STALL_SECONDS)
        while True:
            faulthandler.dump_traceback_later(patience, exit=True, file=2)
            if self._ended.wait(1.0):
                break
        faulthandler.cancel_dump_traceback_later()

    def _close_idle(self) -> None:
        """Close idle instances in a thread of its own.

        In the heartbeat's thread, a plugin's `close` could delay the renewal of leases.
        """
        while not self._ended.wait(0.5):
            self.instances.close_idle()
            self.slots.check()

    def _beat(self) -> None:
        while not self._ended.wait(min(BEAT_SECONDS, self._shortest_lease / 3)):
            # If one of them cannot be written, the others may be.
            for step in (
                self._renew_if_due,
                self._beat_if_due,
                self._release_waiting,
                self._record_progress_if_due,
            ):
                self._attempt(step)
            if not self.saver.alive or self.saver.stuck:
                log.critical(
                    "the saver %s; this process exits. Its tasks are requeued when their leases"
                    " expire",
                    "is stuck" if self.saver.alive else "has died",
                )
                os._exit(1)

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except DATABASE_UNAVAILABLE as error:
            log.warning(
                "the heartbeat failed because PostgreSQL is unavailable; leases expire unless"
                " it answers again: %s",
                error,
            )
            self.admission.doubt()
        except Exception:
            log.exception("the heartbeat failed; retrying")

    def _renew_if_due(self) -> None:
        now = time.monotonic()
        if now - self._renewed >= self._shortest_lease / 3:
            self._renew()
            self._renewed = now

    def _beat_if_due(self) -> None:
        now = time.monotonic()
        if now - self._beaten >= (1.0 if self.draining.is_set() else HEARTBEAT_SECONDS):
            self._heartbeat()
            self._beaten = now

    def _release_waiting(self) -> None:
        self.release(self.inflight.withdraw(MAX_WAIT_SECONDS, STALLED_SECONDS, NEW_USER_SECONDS))

    def _record_progress_if_due(self) -> None:
        now = time.monotonic()
        if now - self._recorded < PROGRESS_SECONDS or self.admission.cut_off:
            return
        self._recorded = now
        if reports := self.inflight.take_reports():
            with self.database.connection() as conn:
                leases.record_progress(conn, reports)

    def _renew(self) -> None:
        tasks = self.inflight.active_leases()
        if tasks:
            with self.database.connection() as conn:
                leases.renew(conn, tasks, self.settings.lease_seconds)

    def _heartbeat(self) -> None:
        with self.database.connection() as conn:
            if not self._registered:
                processes.register(conn, catalog(self.registry))
                self._registered = True
            # A draining worker without tasks registers no queues: then it may be stopped.
            process = (
                replace(self._process, queues=[])
                if self.draining.is_set() and not len(self.inflight)
                else self._process
            )
            drain_requested = processes.heartbeat(
                conn, process, datetime.now(UTC), self.counters.written()
            )
            self.reserve.divide(*processes.group(conn, self._process.id))
            self.accounts.override(limit_overrides.effective(conn, self.settings.limits))
            # A lease lasts as long as the process that granted it promised, until this one has
            # renewed it.
            own = self.settings.lease_seconds
            self._shortest_lease = processes.lease_lengths(conn, own).shortest
            if time.monotonic() - self._began > leadership.VACANT_SECONDS and leadership.vacant(
                conn
            ):
                self.on_vacancy()
        if drain_requested and not self.draining.is_set():
            self.draining.set()
            self.on_drain()
        elif not drain_requested and self.draining.is_set():
            self.draining.clear()
            self.on_undo()
            self._heartbeat()  # registers the queues again
            return
        self._record_throughput()
        self._record_use()

    def _record_throughput(self) -> None:
        """Record this process's throughput for plots. If that fails, log it and keep the counts."""
        throughput = self.counters.take_throughput()
        if not any(throughput):
            return
        try:
            with self.database.connection() as conn:
                processes.record_throughput(conn, *throughput)
        except Exception as error:  # noqa: BLE001
            self.counters.restore_throughput(*throughput)
            log.warning(
                "could not record throughput; retrying at the next heartbeat: %s", describe(error)
            )

    def _record_use(self) -> None:
        """Add what users took since the latest heartbeat. If that fails, keep the numbers."""
        used = self.counters.use.take()
        try:
            with self.database.connection() as conn:
                add_use(conn, used)
        except Exception as error:  # noqa: BLE001
            self.counters.use.restore(used)
            log.warning(
                "could not record the use of users; retrying at the next heartbeat: %s",
                describe(error),
            )

    def _first_budgets(self) -> bool:
        with self.database.connection() as conn:
            return leadership.start_budgets(conn)


def _by_queue(dispatches: Sequence[Dispatch]) -> dict[str, list[str]]:
    """Return the ids of the messages, by queue."""
    ids: dict[str, list[str]] = {}
    for dispatch in dispatches:
        ids.setdefault(dispatch.domain, []).append(dispatch.id)
    return ids
