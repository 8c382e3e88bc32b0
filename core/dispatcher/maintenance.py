"""Maintenance: the periodic jobs of the leader."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import psycopg

from core.content.blobs import UNREFERENCED_SECONDS, Blobs
from core.db.clocks import DAY
from core.db.errors import remove_values
from core.db.pool import DATABASE_UNAVAILABLE, Conn, Database, DiskFull, passes
from core.dispatcher.schedule import is_frequent, missed_seconds, tick_seconds
from core.errors import StoreUnavailable
from core.ledger import (
    audit,
    breakers,
    carry_over,
    completion,
    dispatching,
    endings,
    erasure,
    far_ahead,
    hints,
    leadership,
    leases,
    pauses,
    processes,
    pruning,
    quotas,
    rereads,
    scheduling,
    subscriptions,
)
from core.ledger.monotonic import SAMPLE_SECONDS, old_enough, sample, trusted
from core.limits.budgets import Budgets
from core.metrics.counters import Counters, error_class
from core.observability.errors import report_task
from core.plugins import Registry
from core.settings import Settings
from core.states import TaskState
from core.transport.messages import (
    DELIVER,
    DELIVER_QUEUE,
    OWN_THREADS,
    SAVE_QUEUE,
    dispatch_message,
    encode,
)
from core.transport.queues import REDIS_UNAVAILABLE, Queues
from core.worker.ended_runs import announce

MAX_BLOBS_PER_PASS = 100
"""The maximum number of blobs that one run of the job deletes."""

MAX_DEFERRED_PER_PASS = 500
"""The number of due deferred tasks that one pass of the leader reads."""

CARRY_SECONDS = 0.05
"""Seconds after which a round of the leader begins no further portion of carried tasks."""

DELETE_SECONDS = 0.5
"""The maximum time for which a job deletes content or blobs, in seconds.

It is short because the leader has other work, and a bucket may respond slowly.
"""

END_SECONDS = 0.1
"""Seconds after which a round of the leader ends no further accounts of an organization."""

PRUNE_SECONDS, PRUNE_AGAIN_SECONDS = 0.05, 0.05
"""The time for which the job deletes old runs, and the pause before the next time, in seconds.

The leader dispatches tasks in between.
"""

MAX_STEP_SECONDS = 1.0
"""Seconds by which the database's clock may run ahead between two looks at leases."""

ASK_SECONDS = 2.0
"""Seconds for which lost messages wait for the answers of workers.

A worker looks every 0.5 s while it holds work. If its last look is older than 2 s, it starts
nothing.
"""

ANSWER_SECONDS = 0.05
"""Seconds between two reads of the workers' answers."""

DELETE_AGAIN_SECONDS = 3.0
"""Seconds after which the job runs again if it may have left some."""

REREAD_AGAIN_SECONDS = 0.5
"""Seconds after which the job looks again whether accounts are to be read again."""

SLICE_SECONDS = 0.2
"""Seconds between two slices of the open runs, when a job looks at all of them."""

STAND_IN_TICKS = 2.5
"""The number of intervals without a tick after which the leader reports a silent scheduler.

If the schedule is not frequent, the leader then polls in the scheduler's place.
"""

CLAIM_SECONDS = 0.1
"""Seconds after which a round of the leader begins no further claim of due accounts."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Job:
    """A job that runs every `seconds`.

    Attributes:
      needs_redis: True if the job waits while Redis is unavailable.
    """

    seconds: float
    run: Callable[[Conn], None]
    due: float = 0.0
    needs_redis: bool = False


class Maintenance:
    """The jobs of the leader, each with its own timer."""

    def __init__(
        self, id: UUID, settings: Settings, database: Database, queues: Queues, registry: Registry
    ) -> None:
        self._settings = settings
        self._queues = queues
        self._registry = registry
        self._blobs = Blobs(database, settings.blob_location, settings.home / "spool")
        self._budgets = Budgets(queues.client, queues.key, lambda: False, queues.run_first)
        self._counters = Counters()
        lease = settings.lease_seconds
        self._process = processes.Process(
            id, "dispatcher", socket.gethostname(), os.getpid(), [], 0, lease_seconds=lease
        )
        self.leases = processes.LeaseLengths(lease, lease)
        self._gap_at = float("inf")
        self._redis_is_away = False
        self._redis_back_at = float("-inf")
        self._settle_at = 0.0
        self._asked: datetime | None = None
        self._lost: set[str] = set()
        self.on_disk_full: Callable[[Exception], None] = lambda _: None
        self._silent_since = time.monotonic()
        self._silence_reported = False
        self._claims = is_frequent(settings.cron_schedule)
        self._claiming = Job(1.0, self._claim_due)
        self._pruning = Job(60.0, self._prune)
        self._kept_run_pruner = pruning.KeptRunPruner()
        self._pruning_content = Job(60.0, self._prune_content)
        self._collecting = Job(60.0, self._collect_blobs)
        self._erasing = Job(5.0, self._erase)
        self._ending = Job(2.0, self._end_organizations)
        self._forgetting = Job(5.0, self._end_forgotten_runs)
        self._marking = Job(60.0, self._mark_over_limit)
        self._forgotten_after = self._marked_after = completion.FIRST_RUN
        self._continuing = Job(2.0, self._continue_deferred)
        self._hinting = Job(1.0, self._open_hinted)
        self._carrying = Job(1.0, self._carry_on)
        self._pausing = Job(2.0, self._pause_and_resume)
        self._quotas = quotas.Judge()
        self._rereading = Job(5.0, self._reread_outdated)
        self._far_ahead = Job(5.0, self._make_due)
        self._watched_at: float | None = None
        self._ahead: float | None = None
        self._give_up = settings.give_up_after_days * DAY
        self._jobs = [
            Job(2.0, self._resend, needs_redis=True),
            Job(ANSWER_SECONDS, self._settle, needs_redis=True),
            Job(min(2.0, lease / 3), self._expire_leases),
            Job(lease / 4, self._renew_waiting, needs_redis=True),
            self._forgetting,
            self._marking,
            self._continuing,
            self._hinting,
            Job(5.0, hints.release),
            self._carrying,
            Job(2.0, self._defer_waiting),
            self._pausing,
            self._rereading,
            Job(5.0, self.register),
            Job(10.0, self._set_quotas),
            Job(2.0, self._judge_quotas),
            Job(10.0, self.check_epoch, needs_redis=True),
            Job(10.0, self._check_ticks),
            Job(1.0, self._deliver, needs_redis=True),
            Job(10.0, self._drop_old_deliveries, needs_redis=True),
            Job(60.0, self._give_up_deliveries),
            *([self._claiming] if self._claims else []),
            Job(60.0, lambda conn: pruning.prune(conn, partial(old_enough, conn))),
            Job(SAMPLE_SECONDS, self._watch_clock),
            self._far_ahead,
            Job(60.0, self._prune_budgets, needs_redis=True),
            self._pruning,
            self._pruning_content,
            self._collecting,
            self._erasing,
            self._ending,
        ]

    def after_gap(self) -> None:
        """Expire no leases for the duration of the longest lease.

        This process has just started to lead, or a server was unavailable. Other processes may not
        have been able to renew their leases.
        """
        now = self._gap_at = time.monotonic()
        self._watched_at = None
        for job in self._jobs:
            job.due = min(job.due, now + job.seconds)

    @property
    def asking(self) -> bool:
        """True while the leader waits for answers of workers."""
        return self._asked is not None

    @property
    def is_pruning(self) -> bool:
        """True while there may be more old runs to delete."""
        return self._pruning.due <= time.monotonic() + PRUNE_AGAIN_SECONDS

    def redis_is_away(self) -> None:
        """Omit the jobs that need Redis, and suspect no task, until `redis_is_back`."""
        self._redis_is_away = True

    def redis_is_back(self) -> None:
        """Resume all jobs. Suspect no task for the duration of the longest lease."""
        self._redis_is_away = False
        self._redis_back_at = time.monotonic()

    def deregister(self, conn: Conn) -> None:
        """Delete the row of this process, before it exits."""
        processes.deregister(conn, self._process.id)

    def run_due(self, conn: Conn) -> None:
        """Run the jobs that are due. A job that fails does not stop the others.

        Raises:
          Exception: A server is unavailable: an error of `DATABASE_UNAVAILABLE` or
            `REDIS_UNAVAILABLE`, or one of psycopg that passes.
        """
        now = time.monotonic()
        for job in self._jobs:
            if now < job.due or (job.needs_redis and self._redis_is_away):
                continue
            job.due = now + job.seconds
            try:
                job.run(conn)
            except (DiskFull, psycopg.errors.DiskFull) as error:
                self.on_disk_full(error)  # other jobs may not need space
            except (*DATABASE_UNAVAILABLE, *REDIS_UNAVAILABLE):
                raise
            except Exception as error:
                if isinstance(error, psycopg.Error) and passes(error):
                    raise  # the server is unavailable; the loop waits for it
                # The connection does this only for errors that leave its block.
                remove_values(error)
                log.exception(
                    "a maintenance job failed; it runs again in %.0f s, other jobs continue",
                    job.seconds,
                )

    def _resend(self, conn: Conn) -> None:
        """Find lost messages, and delete orphaned messages.

        An orphaned message is one whose task is no longer queued. Lost messages are sent again as
        soon as all workers have answered which of their tasks they hold, or after `ASK_SECONDS`.
        """
        lost, orphans = self._compare(conn)
        if orphans:
            self._queues.ack(orphans)
        if lost and self._asked is None:
            self._lost = {id for ids in lost.values() for id in ids}
            self._asked = processes.ask(conn)
            self._settle_at = time.monotonic() + ASK_SECONDS
            if self._asked is None:
                self._send_again(conn, set())

    def _settle(self, conn: Conn) -> None:
        """Send lost messages again when the workers have answered, or have had their time."""
        if self._asked is None:
            return
        if time.monotonic() < self._settle_at and not processes.answered(conn, self._asked):
            return
        asked, self._asked = self._asked, None
        self._send_again(conn, processes.settle(conn, asked))

    def _compare(
        self, conn: Conn
    ) -> tuple[dict[str, dict[str, tuple[int, int]]], dict[str, set[str]]]:
        """Compare Redis with the ledger.

        Redis is read before the ledger: a message acknowledged before that belongs to a committed
        task. The leader dispatches nothing in between.

        Returns:
          The (task, dispatch_no) of each lost message by its id, and the ids of orphaned messages,
          each by queue.
        """
        domains = sorted(dispatching.catalogs(conn))
        if not domains:
            return {}, {}
        saving, *ids_by_domain = self._queues.ids(SAVE_QUEUE, *domains)
        lost: dict[str, dict[str, tuple[int, int]]] = {}
        orphans: dict[str, set[str]] = {}
        known: set[str] = set()
        for domain, ids in zip(domains, ids_by_domain, strict=True):
            queued = dispatching.queued(conn, domain)
            known |= queued.keys()
            if missing := queued.keys() - ids - saving:
                lost[domain] = {id: queued[id] for id in missing}
            if orphaned := ids - queued.keys():
                orphans[domain] = orphaned
        if orphaned := saving - known:
            orphans[SAVE_QUEUE] = orphaned
        return lost, orphans

    def _send_again(self, conn: Conn, held: set[str]) -> None:
        """Send lost messages with the same `dispatch_no`, except those of tasks that workers hold.

        A message that was lost after the question is left to the next comparison.
        """
        lost, _ = self._compare(conn)
        for domain, missing in lost.items():
            tasks = [task for id, task in missing.items() if id in self._lost]
            if not tasks:
                continue
            messages = {
                dispatch.id: dispatch_message(dispatch)
                for dispatch in trusted(conn, dispatching.as_sent(conn, tasks), self._give_up)
            }
            theirs = {id: messages.pop(id) for id in messages.keys() & held}
            log.warning(
                "Redis has lost %d messages of %s; sending %d again, workers hold the others",
                len(messages) + len(theirs),
                domain,
                len(messages),
            )
            self._queues.restore(domain, theirs)
            self._queues.send(domain, messages)

    def _renew_waiting(self, conn: Conn) -> None:
        """Renew the leases of tasks and results whose messages wait in Redis."""
        waiting = [
            id
            for queue in [SAVE_QUEUE, *dispatching.catalogs(conn)]
            for id in self._queues.waiting(queue)
        ]
        held = [
            (int(task), int(number), None)
            for task, _, number in (id.partition("-") for id in waiting)
            if number.isdigit()
        ]
        if held:
            leases.renew_waiting(conn, held, self.leases.longest)

    def _clock_stepped(self, conn: Conn) -> bool:
        """Return True if the database's clock has run ahead of this leader's monotonic clock."""
        now, shown = time.monotonic(), leases.clock(conn)
        ahead, self._ahead = self._ahead, shown - now
        return ahead is not None and shown - now > ahead + MAX_STEP_SECONDS

    def _expire_leases(self, conn: Conn) -> None:
        """Requeue tasks with expired leases as suspects; park those that crashed too often.

        If the clock has stepped ahead, leases of live processes have expired, too. They are renewed
        within a third of a lease.
        """
        if self._clock_stepped(conn):
            log.warning("the clock of PostgreSQL stepped ahead; no lease expires for one lease")
            self.after_gap()
        since = time.monotonic() - self.leases.longest
        if since < self._gap_at:
            return
        suspect = not self._redis_is_away and since >= self._redis_back_at
        expired = leases.expire(conn, suspect=suspect)
        if not expired:
            return
        parked = sum(task.state == TaskState.PARKED for task in expired)
        log.warning(
            "%d task leases expired; %d tasks requeued%s, %d tasks parked",
            len(expired),
            len(expired) - parked,
            " as suspects" if suspect else "",
            parked,
        )
        if not self._redis_is_away:  # later, `_resend` deletes the messages
            for task in expired:
                self._queues.ack({task.domain: [f"{task.task_id}-{task.dispatch_no}"]})
        for task in expired:
            if task.state == TaskState.PARKED:
                log.warning(
                    "task %s (%s of %s) is parked: %s",
                    task.task_id,
                    task.type,
                    task.domain,
                    leases.DIED,
                )
                self._counters.count(
                    "tasks",
                    domain=task.domain,
                    state=TaskState.PARKED,
                    error=error_class(leases.DIED),
                )
                description = {
                    "id": task.task_id,
                    "run_id": task.run_id,
                    "account_id": task.account_id,
                    "domain": task.domain,
                }
                self._registry.observe(
                    "task_parked", task=description | {"type": task.type, "error": leases.DIED}
                )
                tags = {
                    "domain": task.domain,
                    "type": task.type,
                    "account": str(task.account_id),
                    "run": str(task.run_id),
                }
                report_task(None, leases.DIED, tags | {"task": str(task.task_id)})
        self._announce(
            completion.end_runs(
                conn,
                {task.run_id for task in expired if task.state == TaskState.PARKED},
                _leave_unsettled,
            )
        )

    def _end_forgotten_runs(self, conn: Conn) -> None:
        """End complete runs in a slice of the open runs. The next slice follows soon."""
        ended, self._forgotten_after = completion.end_forgotten_runs(
            conn, _leave_unsettled, self._forgotten_after
        )
        if self._forgotten_after != completion.FIRST_RUN:
            self._forgetting.due = time.monotonic() + SLICE_SECONDS
        self._announce(ended)

    def _mark_over_limit(self, conn: Conn) -> None:
        """Mark runs that are too large in a slice of the open runs. The next slice follows soon."""
        self._marked_after = pruning.mark_over_limit(conn, self._marked_after)
        if self._marked_after != completion.FIRST_RUN:
            self._marking.due = time.monotonic() + SLICE_SECONDS

    def _continue_deferred(self, conn: Conn) -> None:
        """Retry deferred tasks that are due. If there may be more, the job runs again soon."""
        if carry_over.continue_deferred(conn, MAX_DEFERRED_PER_PASS) == MAX_DEFERRED_PER_PASS:
            self._continuing.due = 0.0

    def _open_hinted(self, conn: Conn) -> None:
        """Open the runs of hints that had to wait. If there may be more, run again soon."""
        if hints.open_due(conn):
            self._queues.wake()
            self._hinting.due = 0.0

    def _carry_on(self, conn: Conn) -> None:
        """Move tasks of earlier runs. If there may be more, the job runs again in the next round.

        In between, the leader dispatches tasks.
        """
        if carry_over.carry_on(conn, CARRY_SECONDS):
            self._carrying.due = 0.0

    def _defer_waiting(self, conn: Conn) -> None:
        """Defer what has waited for a limit for one poll interval, and poll these accounts."""
        runs = set()
        for overdue in breakers.overdue_limits(conn):
            while breakers.defer_waiting(conn, overdue) == breakers.MAX_DEFERRED:
                pass
            runs.add(str(overdue.run))
        ended = completion.end_runs(conn, runs, _leave_unsettled)
        for run in ended:
            carry_over.poll_soon(conn, run["user_integration_id"])
        self._announce(ended)

    def _pause_and_resume(self, conn: Conn) -> None:
        """Hold back the accounts of paused integrations, and schedule those of resumed ones."""
        if pauses.hold_accounts(conn) | pauses.end_pauses(conn):
            self._pausing.due = 0.0

    def _reread_outdated(self, conn: Conn) -> None:
        """Begin rereads of content that an older reader has read."""
        begun = rereads.reread_outdated(conn)
        if begun:
            self._queues.wake()
            self._rereading.due = time.monotonic() + REREAD_AGAIN_SECONDS
            log.info("%d accounts are read again with a newer reader", begun)

    def register(self, conn: Conn) -> None:
        """Record the heartbeat of this dispatcher, with its counters for `/metrics`."""
        processes.heartbeat(conn, self._process, datetime.now(UTC), self._counters.written())

    def _watch_clock(self, conn: Conn) -> None:
        """Record how long the monotonic clock of this leader has run."""
        now = time.monotonic()
        days = max(
            self._settings.retention_days,
            self._settings.give_up_after_days,
            self._settings.deleted_retention_days or 0,
            self._settings.audit_retention_days,
        )
        delay = self._settings.erase_after_minutes * 60
        failing = subscriptions.PAUSE_SECONDS
        longest = max(days * DAY, delay, failing, *(seconds for _, seconds in pruning.PRUNED))
        sample(conn, 0.0 if self._watched_at is None else now - self._watched_at, longest)
        self._watched_at = now

    def _make_due(self, conn: Conn) -> None:
        """Make due what the database's clock, now set back, has put too far ahead."""
        far_ahead.shorten_leases(conn, self.leases.longest)
        if moved := far_ahead.make_due(conn):
            log.warning(
                "the clock of PostgreSQL was set back; %d polls and deferred tasks are due now",
                moved,
            )
            self._far_ahead.due = 0.0

    def _announce(self, ended: list[completion.Run]) -> None:
        self._counters.ended(ended)
        announce(self._registry, ended)

    def check_epoch(self, conn: Conn) -> None:
        """Start a new epoch if Redis knows a later dispatch than the database.

        Then the database was restored from a backup.
        """
        sent, last = self._queues.number("seq"), leadership.last_sequence(conn)
        if sent is not None and sent > last:
            log.warning("database restore detected; discarding messages and results from before it")
            leadership.renew_epoch(conn, leadership.status(conn).epoch)
            self._queues.mark("seq", last)

    def _set_quotas(self, conn: Conn) -> None:
        quotas.set_default(conn, self._settings.quotas.model_dump())

    def _judge_quotas(self, conn: Conn) -> None:
        """Add up the content of users, and compare it with their quotas."""
        if self._quotas.look(conn) and not self._redis_is_away:
            self._queues.wake()

    def _claim_due(self, conn: Conn) -> None:
        """Open runs for due accounts. If there may be more, the job runs again in the next round.

        In between, the leader dispatches tasks.
        """
        if not scheduling.any_due(conn):
            return
        made, more = scheduling.poll_for(conn, self._settings.batch_size, CLAIM_SECONDS)
        if made and not self._redis_is_away:
            self._queues.wake()
        if more:
            self._claiming.due = 0.0

    def _check_ticks(self, conn: Conn) -> None:
        """Report a silent scheduler, and poll in its place.

        A scheduler is not silent in the hours to which its schedule restricts it.
        """
        silent = min(time.monotonic() - self._silent_since, leadership.status(conn).silent_seconds)
        schedule = self._settings.cron_schedule
        missed = missed_seconds(schedule, silent)
        if missed < (STAND_IN_TICKS - 1) * tick_seconds(schedule):
            self._silence_reported = False
            return
        made = 0 if self._claims else scheduling.poll(conn, self._settings.batch_size)
        if made or (self._claims and not self._silence_reported):
            log.warning(
                "the scheduler has not ticked for %.0f s (is `periodiq core.actors` running?);"
                " the leader starts the runs of due accounts",
                silent,
            )
            self._silence_reported = True

    def _deliver(self, conn: Conn) -> None:
        """Lease the subscriptions that are due, and send the messages of their deliveries."""
        leased = subscriptions.lease_due(conn, DELIVER_QUEUE, OWN_THREADS[DELIVER_QUEUE])
        self._queues.send(
            DELIVER_QUEUE,
            {
                (name := f"{id}-{token}"): encode(
                    DELIVER_QUEUE, DELIVER, name, {"subscription": str(id), "token": token}
                )
                for id, token in leased
            },
        )

    def _drop_old_deliveries(self, conn: Conn) -> None:
        """Delete the messages of dispatches that are over, such as those of a killed process."""
        [sent] = self._queues.ids(DELIVER_QUEUE)
        if old := sent - {f"{id}-{token}" for id, token in subscriptions.in_flight(conn)}:
            self._queues.ack({DELIVER_QUEUE: old})

    def _give_up_deliveries(self, conn: Conn) -> None:
        before = old_enough(conn, subscriptions.GIVE_UP_SECONDS)
        failing_before = old_enough(conn, subscriptions.PAUSE_SECONDS)
        if number := subscriptions.give_up(conn, before, failing_before):
            log.warning("%d messages or subscriptions failed for too long", number)
        subscriptions.prune_failed(conn, old_enough(conn, self._settings.retention_days * DAY))

    def _prune_budgets(self, conn: Conn) -> None:  # noqa: ARG002  the signature of a job
        self._budgets.prune()

    def _prune(self, conn: Conn) -> None:
        days, judge = self._settings.retention_days, partial(old_enough, conn)
        if not pruning.prune_runs(conn, days, PRUNE_SECONDS, judge):
            self._pruning.due = time.monotonic() + PRUNE_AGAIN_SECONDS
        elif not self._kept_run_pruner.prune(conn, days, PRUNE_SECONDS, judge):
            self._pruning.due = time.monotonic() + DELETE_AGAIN_SECONDS

    def _prune_content(self, conn: Conn) -> None:
        is_done = pruning.prune_content(conn, DELETE_SECONDS)
        is_done &= audit.prune(conn, self._settings.audit_retention_days, partial(old_enough, conn))
        if (days := self._settings.deleted_retention_days) is not None:
            judge = partial(old_enough, conn)
            is_done &= pruning.remove_deleted(conn, days, DELETE_SECONDS, judge)
        if not is_done:
            self._pruning_content.due = time.monotonic() + DELETE_AGAIN_SECONDS

    def _erase(self, conn: Conn) -> None:
        """Delete the data of erased accounts after the delay; move those of restored ones.

        If there may be more, the job runs again soon.
        """
        before = old_enough(conn, self._settings.erase_after_minutes * 60)
        if not erasure.erase_due(conn, before, DELETE_SECONDS):
            self._erasing.due = time.monotonic() + DELETE_AGAIN_SECONDS
        if not erasure.move_restored(conn, PRUNE_SECONDS):
            self._erasing.due = time.monotonic() + PRUNE_AGAIN_SECONDS

    def _end_organizations(self, conn: Conn) -> None:
        """End the accounts of disconnected organizations. If there are more, run again soon.

        In between, the leader dispatches tasks.
        """
        if not endings.end_due(conn, END_SECONDS):
            self._ending.due = 0.0

    def _collect_blobs(self, conn: Conn) -> None:
        if (before := old_enough(conn, UNREFERENCED_SECONDS)) is None:
            return
        try:
            collected = self._blobs.collect(
                most=MAX_BLOBS_PER_PASS, seconds=DELETE_SECONDS, before=before
            )
        except StoreUnavailable as error:
            log.warning("unreferenced blobs stay until the next run of this job: %s", error)
            return
        if collected:
            self._collecting.due = time.monotonic() + DELETE_AGAIN_SECONDS
            log.info("deleted %d blobs that no content row references", collected)


def _leave_unsettled(run: completion.Run) -> None:
    """Leave a large settlement to later runs, because the leader has other work."""
