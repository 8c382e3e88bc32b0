"""What the leader does every few seconds besides dispatching."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import pendulum
import psycopg
from periodiq import cron

from core.content.blobs import Blobs
from core.db.pool import UNAVAILABLE, Conn, Database, passes
from core.ledger import completion, dispatching, leadership, leases, scheduling, upkeep
from core.messages import SAVE_QUEUE, dispatch_message
from core.observing.errors import report_task
from core.plugins import Registry
from core.queues import UNAVAILABLE as REDIS_UNAVAILABLE
from core.queues import Queues
from core.settings import Settings
from core.worker.figures import Figures, error_class

MOST_BLOBS = 100
"""Removed at a time."""

CLEARING_SECONDS = 0.5
"""Seconds for deleting old tasks or blobs without a break.

The leader has other things to do, and a bucket may be far away.
"""

CLEAR_AGAIN_SECONDS = 3.0
"""How soon it goes on with them, where there may be more."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Chore:
    """Something to do every `seconds`."""

    seconds: float
    do: Callable[[Conn], None]
    due: float = 0.0


class Chores:
    """The leader's chores, each by its own timer."""

    def __init__(
        self, settings: Settings, database: Database, queues: Queues, registry: Registry
    ) -> None:
        self._settings = settings
        self._queues = queues
        self._registry = registry
        self._blobs = Blobs(database, settings.blob_location, settings.home / "spool")
        self._figures = Figures()
        self._process = upkeep.Process(
            uuid4(), "dispatcher", socket.gethostname(), os.getpid(), [], 0
        )
        self._sweep_from = float("inf")
        self._silent_since = time.monotonic()
        self._pruning = Chore(60.0, self._prune)
        self._collecting = Chore(60.0, self._collect_blobs)
        lease = settings.lease_seconds
        self._chores = [
            Chore(2.0, self._resend),
            Chore(min(2.0, lease / 3), self._sweep),
            Chore(lease / 4, self._renew_waiting),
            Chore(5.0, self._end_forgotten_runs),
            Chore(5.0, self._say_alive),
            Chore(10.0, self._check_epoch),
            Chore(10.0, self._check_ticks),
            Chore(60.0, upkeep.tidy),
            self._pruning,
            self._collecting,
        ]

    def after_gap(self) -> None:
        """After an election or an outage, wait a complete lease before calling one expired."""
        now = time.monotonic()
        self._sweep_from = now + self._settings.lease_seconds
        for chore in self._chores:
            chore.due = min(chore.due, now + chore.seconds)

    def begin(self, conn: Conn) -> None:
        """What a new leader does before anything else."""
        self.after_gap()
        self._check_epoch(conn)

    def goodbye(self, conn: Conn) -> None:
        """This process leads no longer, and will not again."""
        upkeep.goodbye(conn, self._process.id)

    def do_due(self, conn: Conn) -> None:
        """Do what is due."""
        now = time.monotonic()
        for chore in self._chores:
            if now < chore.due:
                continue
            chore.due = now + chore.seconds
            try:
                chore.do(conn)
            except (*UNAVAILABLE, *REDIS_UNAVAILABLE):
                raise
            except Exception as error:
                if isinstance(error, psycopg.Error) and passes(error):
                    raise  # the server is away: that is for the loop
                log.exception("a chore of the leader failed; the others go on")

    # Messages
    # ----------------------------------------------------------------------------------------------

    def _resend(self, conn: Conn) -> None:
        """Resend messages that Redis lost; delete those that the ledger no longer has as queued.

        Redis is read first: what is acknowledged before that is committed, and what is dispatched
        after it is not looked at.
        """
        domains = sorted(dispatching.catalogs(conn))
        if not domains:
            return
        saving, *found = self._queues.ids(SAVE_QUEUE, *domains)
        known: set[str] = set()
        for domain, ids in zip(domains, found, strict=True):
            queued = dispatching.queued(conn, domain)
            known |= queued.keys()
            missing = [queued[id] for id in queued.keys() - ids - saving]
            if missing:
                again = dispatching.as_sent(conn, missing)
                log.warning(
                    "Redis has lost %d messages of %s; they are sent again", len(again), domain
                )
                self._queues.send(
                    domain, {dispatch.id: dispatch_message(dispatch) for dispatch in again}
                )
            if orphans := ids - queued.keys():
                self._queues.ack({domain: orphans})
        if orphans := saving - known:
            self._queues.ack({SAVE_QUEUE: orphans})

    def _renew_waiting(self, conn: Conn) -> None:
        """Renew leases of what waits in Redis: tasks for a thread, results for a saver."""
        waiting = [
            id
            for queue in [SAVE_QUEUE, *dispatching.catalogs(conn)]
            for id in self._queues.waiting(queue)
        ]
        held = [
            (int(task), int(number))
            for task, _, number in (id.partition("-") for id in waiting)
            if number.isdigit()
        ]
        if held:
            leases.renew_waiting(conn, held, self._settings.lease_seconds)

    # Leases and runs
    # ----------------------------------------------------------------------------------------------

    def _sweep(self, conn: Conn) -> None:
        if time.monotonic() < self._sweep_from:
            return
        expired = leases.expire(conn)
        if not expired:
            return
        log.warning(
            "%d leases have run out; the tasks are dispatched again, and watched", len(expired)
        )
        for one in expired:
            self._queues.ack({one.domain: [f"{one.task_id}-{one.dispatch_no}"]})
            if one.state == "parked":
                self._figures.count(
                    "tasks", domain=one.domain, state="parked", error=error_class(leases.DIED)
                )
                task = {
                    "id": one.task_id,
                    "run_id": one.run_id,
                    "account_id": one.account_id,
                    "domain": one.domain,
                }
                self._registry.observe(
                    "task_parked", task=task | {"type": one.type, "error": leases.DIED}
                )
                names = {
                    "domain": one.domain,
                    "type": one.type,
                    "account": str(one.account_id),
                    "run": str(one.run_id),
                }
                report_task(None, leases.DIED, names | {"task": str(one.task_id)})
        self._tell(
            completion.end_runs(conn, {one.run_id for one in expired if one.state == "parked"})
        )

    def _end_forgotten_runs(self, conn: Conn) -> None:
        self._tell(completion.end_forgotten_runs(conn))

    def _say_alive(self, conn: Conn) -> None:
        """What the leader itself has counted, for `/metrics`."""
        upkeep.heartbeat(conn, self._process, datetime.now(UTC), self._figures.written())

    def _tell(self, ended: list[completion.Run]) -> None:
        self._figures.ended(ended)
        for run in ended:
            log.info(
                "run %s of account %s ended: %s",
                run["id"],
                run["user_integration_id"],
                run["state"],
            )
            self._registry.observe("run_finished", run=run)

    # The database's own life
    # ------------------------------------------------------------------------------------------

    def _check_epoch(self, conn: Conn) -> None:
        """Detect a restored database: Redis remembers a later dispatch than the database does."""
        sent, last = self._queues.number("seq"), leadership.last_sequence(conn)
        if sent is not None and sent > last:
            log.warning(
                "the database has gone back in time; messages and results of the time lost are"
                " refused"
            )
            leadership.renew_epoch(conn, leadership.status(conn).epoch)
            self._queues.mark("seq", last)

    def _check_ticks(self, conn: Conn) -> None:
        """If the scheduler is silent, say so and poll ourselves."""
        status = leadership.status(conn)
        interval = tick_seconds(self._settings.cron_schedule)
        silent = time.monotonic() - self._silent_since
        if status.last_tick_at is not None:
            silent = min(silent, (status.now - status.last_tick_at).total_seconds())
        if silent < 2.5 * interval:
            return
        made = scheduling.poll(conn, self._settings.batch_size)
        if made:
            log.warning(
                "no tick of the scheduler for %.0f s (is `periodiq core.actors` running?); polled"
                " %d accounts",
                silent,
                made,
            )

    def _prune(self, conn: Conn) -> None:
        if not upkeep.prune(conn, self._settings.retention_days, CLEARING_SECONDS):
            self._pruning.due = time.monotonic() + CLEAR_AGAIN_SECONDS

    # A chore like the others; it borrows connections of its own.
    def _collect_blobs(self, conn: Conn) -> None:  # noqa: ARG002
        collected = self._blobs.collect(most=MOST_BLOBS, seconds=CLEARING_SECONDS)
        if collected:
            self._collecting.due = time.monotonic() + CLEAR_AGAIN_SECONDS
            log.info("%d blobs that nothing names are removed", collected)


def tick_seconds(schedule: str) -> float:
    """Seconds between the next two ticks of a cron schedule."""
    spec = cron(schedule)
    first = spec.next_valid_date(pendulum.now())
    return float((spec.next_valid_date(first) - first).total_seconds())
