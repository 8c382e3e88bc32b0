"""Threads that save the outcomes of tasks, many in one transaction.

The first thread saves outcomes that add tasks, without delay, because workers wait for these tasks.
The second thread gathers all other outcomes for some milliseconds before it saves them. A third one
settles what takes long after the end of a run, so that no outcome waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

from core.accounts.redaction import describe_redis
from core.backoff import growing_pause
from core.db.errors import describe
from core.db.pool import DATABASE_UNAVAILABLE, Database, DiskFull
from core.errors import StateContended
from core.ledger.commit import CommitResult, commit_outcomes
from core.ledger.completion import Run, end_runs, settle
from core.ledger.outcomes import Outcome, parked
from core.metrics.counters import Counters
from core.observability.traces import span
from core.plugins import Registry
from core.results.delete_guard import DeleteGuard
from core.states import TaskState
from core.transport.queues import REDIS_UNAVAILABLE, Queues
from core.worker.ended_runs import announce
from core.worker.inflight import InflightTasks

GATHER_SECONDS = 0.05
PAUSE_SECONDS = 0.01
"""Seconds that outcomes without new tasks wait for more, while the process has other tasks.

They wait for `GATHER_SECONDS` while further ones arrive, and until none has arrived for
`PAUSE_SECONDS`. Slow tasks that end together then make room for the next ones without delay.
"""

MAX_BATCH_OUTCOMES = 256
MAX_BATCH_ROWS = 5_000
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""The bounds of one batch. An outcome above them is saved alone."""

MAX_BUFFERED_BYTES = 64 * 1024 * 1024
"""The bytes of outcomes that may wait for a saver. Above it, threads wait before they hand over."""

STUCK_SECONDS = 600.0
"""The time in seconds after which a step of saving, observers included, counts as stuck.

An observer may hang, or a lock may never be released.
"""

QUIET_SECONDS = 12.0
"""Seconds without a saved batch after which a process that stops no longer waits for the saver."""

RETRY_SECONDS = (0.05, 2.0)
"""Bounds of the pause before a batch that could not be saved is saved again."""

REPEATED = (*DATABASE_UNAVAILABLE, StateContended)
"""The errors after which a batch is saved again."""

MAX_BATCH_TRIES = 10
"""The number of failures of a batch, with a server that answers, before it is saved one by one."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class _SaveQueue:
    """Outcomes that wait for one saver thread.

    Args:
      name: The name of the thread.
      patience: Seconds for which the thread gathers outcomes.
      lock: The lock that all save queues share, because one bound applies to all their bytes.
      loop: The function of the thread.
    """

    def __init__(
        self, name: str, patience: float, lock: threading.Lock, loop: Callable[[_SaveQueue], None]
    ) -> None:
        self.patience = patience
        self.waiting: deque[Outcome] = deque()
        self.arrived = threading.Condition(lock)
        self.thread = threading.Thread(target=loop, args=[self], name=name, daemon=True)

    @property
    def full(self) -> bool:
        """True if the outcomes fill a batch."""
        return len(self.waiting) >= MAX_BATCH_OUTCOMES


class Saver:
    """A saver of outcomes, which retries while the servers are unavailable.

    Args:
      database: The connections.
      queues: The queues in Redis.
      inflight: The in-flight tasks; those whose outcome is saved are released.
      registry: The observers to notify.
      guard: The delete guard.
      counters: The counters of the process. Default: new ones.
    """

    def __init__(
        self,
        database: Database,
        queues: Queues,
        inflight: InflightTasks,
        registry: Registry,
        *,
        guard: DeleteGuard,
        counters: Counters | None = None,
    ) -> None:
        self._database = database
        self._queues = queues
        self._inflight = inflight
        self._registry = registry
        self._guard = guard
        self._counters = counters or Counters()
        self._bytes = 0
        lock = threading.Lock()
        self._room = threading.Condition(lock)
        self._follow_ups = _SaveQueue("saver of tasks", 0.0, lock, self._loop)
        self._results = _SaveQueue("saver", GATHER_SECONDS, lock, self._loop)
        self._save_queues = (self._follow_ups, self._results)
        self._to_settle = SimpleQueue[Run | None]()
        self._settler = threading.Thread(
            target=self._settle_runs, name="settler of runs", daemon=True
        )
        self._steps: dict[int, float] = {}
        self._stopping = self._releasing = False
        self._saved_at = 0.0

    def start(self) -> None:
        """Start the saver threads."""
        for queue in self._save_queues:
            queue.thread.start()
        self._settler.start()

    def stop(self, timeout: float) -> None:
        """Save all pending results, and end the threads.

        Stop waiting after `timeout` seconds, or when nothing was saved for `QUIET_SECONDS`, because
        PostgreSQL is away. The remaining tasks are requeued when their leases expire.
        """
        with self._room:
            self._stopping = True
            self._room.notify_all()
            for queue in self._save_queues:
                queue.arrived.notify()
        self._to_settle.put(None)
        began = now = time.monotonic()
        while now < began + timeout and now < max(began, self._saved_at) + QUIET_SECONDS:
            alive = [queue.thread for queue in self._save_queues if queue.thread.is_alive()]
            if not alive:
                return
            alive[0].join(0.1)
            now = time.monotonic()

    @property
    def alive(self) -> bool:
        """True if the threads run, or if `stop` has ended them."""
        return all(queue.thread.is_alive() for queue in self._save_queues) or self._stopping

    @property
    def stuck(self) -> bool:
        """True if one step has taken longer than `STUCK_SECONDS`.

        The process must then exit: its tasks would stay in flight forever, with renewed leases.
        """
        return (
            time.monotonic() - min(list(self._steps.values()), default=float("inf")) > STUCK_SECONDS
        )

    def release_waiters(self) -> None:
        """Wake threads that wait for room, so that the process can stop."""
        with self._room:
            self._releasing = True
            self._room.notify_all()

    def hand_over(self, outcome: Outcome) -> None:
        """Queue an outcome. Wait while too many bytes are queued."""
        queue = self._follow_ups if outcome.tasks else self._results
        with self._room:
            self._room.wait_for(
                lambda: self._bytes < MAX_BUFFERED_BYTES or self._releasing or self._stopping
            )
            queue.waiting.append(outcome)
            self._bytes += outcome.size
            # Wake the saver only when it must act. A wake-up for each outcome would cost more than
            # the outcome.
            if len(queue.waiting) == 1 or queue.full:
                queue.arrived.notify()

    def _loop(self, queue: _SaveQueue) -> None:
        while batch := self._gather(queue):
            try:
                self.save(batch)
            except Exception:
                log.exception(
                    "could not save a batch of %d results; their tasks are requeued when their"
                    " leases expire, unless the batch was committed",
                    len(batch),
                )
                self._inflight.release([outcome.dispatch for outcome in batch], done=False)

    def _gather(self, queue: _SaveQueue) -> list[Outcome]:
        with queue.arrived:
            queue.arrived.wait_for(lambda: queue.waiting or self._stopping)
            if queue.patience and len(self._inflight) > len(queue.waiting):
                self._wait_for_more(queue)
            batch: list[Outcome] = []
            rows = size = 0
            while queue.waiting and len(batch) < MAX_BATCH_OUTCOMES:
                rows, size = rows + queue.waiting[0].rows, size + queue.waiting[0].size
                if batch and (rows > MAX_BATCH_ROWS or size > MAX_BATCH_BYTES):
                    break
                batch.append(queue.waiting.popleft())
            self._bytes -= sum(outcome.size for outcome in batch)
            self._room.notify_all()
            return batch

    def _wait_for_more(self, queue: _SaveQueue) -> None:
        until, known = time.monotonic() + queue.patience, 0
        while known < len(queue.waiting) and time.monotonic() < until:
            known = len(queue.waiting)
            if queue.arrived.wait_for(lambda: queue.full or self._stopping, PAUSE_SECONDS):
                return

    def save(self, outcomes: Sequence[Outcome]) -> None:
        """Save outcomes, end runs that are complete, and acknowledge the outcomes' messages.

        If PostgreSQL refuses a batch, halve it until the culprit is found, and park that one. While
        a server is unavailable, wait. A commit whose reply was lost is repeated; the fence refuses
        the outcomes that were already saved.
        """
        try:
            with span("save", {"polling.tasks": len(outcomes)}):
                self._save(outcomes)
        finally:
            self._steps.pop(threading.get_ident(), None)

    def _step(self) -> None:
        """Record that a step of saving begins in this thread."""
        self._steps[threading.get_ident()] = time.monotonic()

    def _save(self, outcomes: Sequence[Outcome]) -> None:
        commits = self._until_available(
            lambda: self._save_or_halve(list(outcomes)), lambda: self._save_singly(outcomes)
        )
        # Release the tasks before the check for complete runs. Otherwise, two threads could each
        # leave that check to the other.
        self._saved_at = time.monotonic()
        self._inflight.release(outcome.dispatch for outcome in outcomes)
        ended = self._until_available(lambda: self._end_runs(outcomes))
        opened = any(run.get("opened_next") for run in ended)
        self._acknowledge(outcomes, wake=opened or any(commit.added for commit in commits))
        self._step()
        self._counters.count_commits(commits, ended)
        self._notify_observers(commits, ended)

    def _save_or_halve(self, outcomes: list[Outcome]) -> list[CommitResult]:
        try:
            return [self._commit(outcomes)]
        except REPEATED:
            raise
        # One bad outcome must not stop the others.
        except Exception as error:  # noqa: BLE001
            if len(outcomes) > 1:
                half = len(outcomes) // 2
                return [
                    *self._save_or_halve(outcomes[:half]),
                    *self._save_or_halve(outcomes[half:]),
                ]
            return [self._park(outcomes[0], error)]

    def _save_singly(self, outcomes: Sequence[Outcome]) -> list[CommitResult]:
        """Save one by one the outcomes of a batch that fails as if the server were unavailable.

        A task whose outcome causes this alone is parked.
        """
        commits = []
        for outcome in outcomes:
            try:
                commits += self._save_or_halve([outcome])
            except REPEATED as error:
                if isinstance(error, DiskFull) or not self._answers():
                    raise
                commits.append(self._park(outcome, error))
        return commits

    def _park(self, outcome: Outcome, error: Exception) -> CommitResult:
        reason = f"the result cannot be saved: {describe(error)}"
        return self._commit([parked(outcome, reason)])

    def _commit(self, outcomes: Sequence[Outcome]) -> CommitResult:
        generic_plans = all(outcome.has_only_named_rows for outcome in outcomes)
        with self._database.connection(generic_plans=generic_plans) as conn:
            return commit_outcomes(conn, outcomes, guard=self._guard)

    def _answers(self) -> bool:
        try:
            with self._database.connection() as conn:
                conn.execute("SELECT 1")
        except DATABASE_UNAVAILABLE:
            return False
        return True

    def _until_available(
        self, action: Callable[[], T], otherwise: Callable[[], T] | None = None
    ) -> T:
        """Retry the call while the server is unavailable.

        After some failures with a server that answers, call `otherwise`.
        """
        failures = tries = 0
        while True:
            self._step()
            try:
                if otherwise is not None and tries >= MAX_BATCH_TRIES and self._answers():
                    return otherwise()
                return action()
            except REPEATED as error:
                pause = growing_pause(*RETRY_SECONDS, failures)
                log.warning("could not save results; retrying in %.1f s: %s", pause, error)
                failures, tries = failures + 1, tries + (not isinstance(error, DiskFull))
            time.sleep(pause)

    def _end_runs(self, outcomes: Sequence[Outcome]) -> list[Run]:
        """End the runs that are complete.

        The thread that releases a run's last in-flight task in this process checks the run.

        A batch that added tasks is not excluded. Another thread may have saved those tasks already;
        it saw the tasks of this batch in flight, and skipped the check.
        """
        runs = {outcome.dispatch.run_id for outcome in outcomes} - self._inflight.runs
        if not runs:
            return []
        with self._database.connection() as conn:
            return end_runs(conn, runs, self._to_settle.put)

    def _settle_runs(self) -> None:
        """Settle runs whose settlement takes long. A failure leaves the rest to later runs."""
        while (run := self._to_settle.get()) is not None:
            try:
                with self._database.connection() as conn:
                    settle(conn, run)
            except Exception:
                log.exception("could not settle the held deletions of run %s", run["id"])

    def _acknowledge(self, outcomes: Sequence[Outcome], *, wake: bool) -> None:
        by_queue: dict[str, list[str]] = defaultdict(list)
        for outcome in outcomes:
            by_queue[outcome.queue or outcome.dispatch.domain].append(outcome.dispatch.id)
        try:
            self._queues.ack(by_queue, wake=wake)
        except REDIS_UNAVAILABLE as error:
            # Nothing is lost: the leader deletes messages of tasks that are no longer queued.
            log.warning(
                "Redis is unavailable; the leader removes the messages of %d saved tasks: %s",
                len(outcomes),
                describe_redis(error),
            )

    def _notify_observers(self, commits: Sequence[CommitResult], ended: Sequence[Run]) -> None:
        for commit in commits:
            for (account, domain), ids in commit.changed.items():
                self._registry.observe(
                    "content_saved", domain=domain, account_id=account, external_ids=ids
                )
            for outcome, state in commit.applied:
                if state == TaskState.PARKED:
                    self._registry.observe("task_parked", task=_described(outcome))
        announce(self._registry, ended)


def _described(outcome: Outcome) -> dict[str, object]:
    dispatch = outcome.dispatch
    return {
        "id": dispatch.task_id,
        "run_id": dispatch.run_id,
        "account_id": dispatch.account_id,
        "domain": dispatch.domain,
        "type": dispatch.type,
        "error": outcome.reason,
    }
