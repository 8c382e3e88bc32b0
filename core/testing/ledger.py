"""The ledger of the harness: it commits results, and applies the decisions of `core.results`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, assert_never

from core.errors import PermanentError
from core.integration.base import BaseIntegration
from core.integration.context import RunInfo
from core.integration.limits import Concurrency, Limit
from core.integration.results import Listing, Task
from core.results.decisions import (
    CONFLICT_SECONDS,
    Crashed,
    Decision,
    Defer,
    Done,
    Expired,
    Park,
    Retry,
    RetryPolicy,
    Snooze,
    StopAccount,
    Wait,
    decide,
)
from core.results.rows import ListingRow, ResultRows, StateRow
from core.states import TaskState, Trigger
from core.testing.content import moment
from core.testing.context import Account, HarnessContext
from core.testing.outcome import Deferred, Parked, SyncResult
from core.testing.queue import Entry, Queue, Run

MAX_WAITS = 1_000
"""The maximum number of waits of one task for a server that only the engine has."""


class Ledger:
    """The runs and tasks of one account.

    Attributes:
      result: The result of the current sync so far.
      resync: True after a task asked for a resync.
      tasks: Every task that was returned and committed, as the plugin made it.
    """

    def __init__(
        self,
        account: Account,
        integration: type[BaseIntegration[Any, Any]],
        limits: list[Limit],
        queue: Queue,
        *,
        max_attempts: int,
        max_tasks: int,
    ) -> None:
        self.result = SyncResult()
        self.resync = False
        self.tasks: list[Task] = []
        self._account, self._integration, self._queue = account, integration, queue
        self._policy = RetryPolicy(max_attempts, passing=tuple(integration.manifest.passing))
        self._max_tasks = min(max_tasks, integration.manifest.max_tasks)
        self._deferred: list[Entry] = []
        self._concurrency = {limit.name for limit in limits if isinstance(limit, Concurrency)}
        self._runs: dict[str, Run] = {}

    # Runs

    def start(self, trigger: str, root: Task) -> None:
        """Start a live run, unless one is open.

        It is complete in a resync, and if a person has accepted held deletions.
        """
        if "live" not in self._runs:
            self._put(root, root.type, self._run("live", trigger))
        deferred, self._deferred = self._deferred, []
        for entry in deferred:
            self._try_again(entry, trigger)

    def finish(self) -> None:
        """End the open runs, which have no more tasks."""
        content = self._account.content
        for run in self._runs.values():
            content.settle(run.info.id, run.began)
        if any(run.info.complete for run in self._runs.values()):
            content.accepted.clear()
        self._runs.clear()

    def _run(self, lane: str, trigger: str) -> Run:
        """Return the open run of a lane, or start one."""
        if lane not in self._runs:
            began = self._account.tick()
            complete = trigger == Trigger.RESYNC or (
                trigger != Trigger.HINT and bool(self._account.content.accepted)
            )
            info = RunInfo(f"run-{began}", trigger, lane, complete=complete)
            self._runs[lane] = Run(info, began)
            self.result.runs.append(self._runs[lane].info)
        return self._runs[lane]

    def _try_again(self, entry: Entry, trigger: str) -> None:
        """Queue a copy of a deferred task, unless the run has this task already.

        A copy within the run of its original gets a key of its own.
        """
        run = self._run(entry.run.info.lane, trigger)
        within = run is entry.run
        key = f"{entry.key} {self._account.tick()}" if within else entry.key
        if key not in run.tasks:
            carried = entry.carried or not within
            copy = replace(entry, run=run, key=key, carried=carried, attempts=0, snoozes=0)
            run.tasks[key] = copy
            self._queue.put(copy)

    def _put(
        self, task: Task, key: str, run: Run, *, carried: bool = False, after: float = 0.0
    ) -> None:
        """Queue a task, unless its run already had one with this key."""
        met = run.tasks.get(key)
        if met is not None and met.carried and not carried:
            key = self._take_place(met, task)
        if key not in run.tasks:
            number = self._account.tick()
            entry = Entry(f"task-{number}", task, run, self._limits_of(task), key, carried=carried)
            run.tasks[key] = entry
            self._queue.put(entry, after)

    def _take_place(self, met: Entry, task: Task) -> str:
        """Return the key under which a run has a task that it took over and comes to itself.

        If the carried task still waits, it becomes a task of the run. If it may have begun, the
        task runs again, once, under a second key.
        """
        is_same = (met.task.type, met.task.payload) == (task.type, task.payload)
        if is_same and met.state is TaskState.READY:
            met.carried = False
        elif met.state in (TaskState.READY, TaskState.QUEUED, TaskState.DONE):
            return f"{met.key} again"
        return met.key

    def _limits_of(self, task: Task) -> frozenset[str]:
        spec = self._integration.task_specs.get(task.type)
        cost = dict.fromkeys(self._concurrency, 1) | dict(spec.cost if spec else {})
        return frozenset(name for name, units in cost.items() if units > 0)

    # Results

    def commit(
        self, entry: Entry, context: HarnessContext, rows: ResultRows, returned: Sequence[Task]
    ) -> None:
        """Commit a result, or queue the task again after a conflict.

        A conflict is a change of a state partition by another task after this task read it.

        Args:
          entry: The task.
          context: The task's context.
          rows: The checked result.
          returned: The follow-ups as the plugin made them.
        """
        if rows.tasks and len(entry.run.tasks) > self._max_tasks:
            return self._park(
                entry, PermanentError(f"the run has more than {self._max_tasks} tasks")
            )
        if self._conflicts(rows):
            return self._queue.put(entry, CONFLICT_SECONDS)
        account, sequence = self._account, context.sequence
        self.result.outputs.update(
            account.content.write(rows, entry.run.info.id, sequence, account.tick())
        )
        self.result.outputs["unchanged"] += rows.unchanged
        self.result.skipped_items.update(rows.skipped)
        for state in rows.states:
            self._write_state(sequence, state)
        for listing in () if entry.never_sweeps else rows.listed:
            self._sweep(listing, entry.run)
        self._add_tasks(entry, rows, returned)
        for key in context.blob_keys:
            account.spool.delete(key)
        self._done(entry)
        return None

    def _done(self, entry: Entry) -> None:
        entry.state = TaskState.DONE
        self.result.tasks_done += 1

    def _conflicts(self, rows: ResultRows) -> bool:
        versions = self._account.versions
        return any(
            state.read is not None and versions[state.partition] != state.read
            for state in rows.states
        )

    def _add_tasks(self, entry: Entry, rows: ResultRows, returned: Sequence[Task]) -> None:
        self.tasks.extend(returned)
        for row, made in zip(rows.tasks, returned, strict=True):
            # The payload has been through JSON, as in the engine.
            task = replace(
                made, payload=row.payload, priority=row.priority, background=row.background
            )
            run = self._run("backfill", entry.trigger) if row.background else entry.run
            self._put(task, row.key, run, carried=entry.never_sweeps, after=row.delay)

    def _write_state(self, sequence: int, state: StateRow) -> None:
        """Write a state partition.

        A write without a read is ignored if a later dispatch wrote the partition.
        """
        account, partition = self._account, state.partition
        if state.read is None and account.writers.get(partition, 0) > sequence:
            return
        account.writers[partition] = max(sequence, account.writers.get(partition, 0))
        account.versions[partition] += 1
        account.state[partition] = state.value
        if state.value is None:
            del account.state[partition]

    def _sweep(self, listing: ListingRow, run: Run) -> None:
        account = self._account
        place = _place(listing)
        self.result.listed.append(place)
        deleted, held = account.content.sweep(listing, run.info.id, run.began, account.tick())
        waiting = {_place(row) for row in account.content.held if row is not None}
        before = [each for each in self.result.held if each in waiting and each != place]
        self.result.held = [*before, place] if held else before
        self.result.outputs["deleted"] += deleted
        self.result.outputs["held"] += held

    # Exceptions

    def fail(self, entry: Entry, error: Exception) -> None:
        """Apply the decision of `core.results.decisions` on this error, with maximum waits."""
        self.result.failures.append(error)
        entry.now = self._queue.clock
        decision = decide(error, entry, self._policy, draw=max)
        self._note_failure(entry, decision)
        match decision:
            case Done(reason=reason):
                self._done(entry)
                self.result.skipped.append(reason)
            case Expired(partition=partition):
                self._write_state(self._account.tick(), StateRow(partition, None, expired=True))
                self._done(entry)
                self.resync = True
            case Retry(seconds=seconds):
                entry.attempts += 1
                self._queue.put(entry, seconds)
            case Defer(seconds=seconds):
                entry.deferrals += 1
                entry.state = TaskState.DEFERRED
                self._deferred.append(entry)
                self.result.deferred.append(Deferred(entry.task, error, seconds))
            case Crashed(seconds=seconds):
                entry.crashes += 1
                self._queue.put(entry, seconds)
            case Wait(seconds=seconds, snoozes=snoozes):
                self._wait(entry, error, seconds, snoozes=snoozes)
            case Snooze(seconds=seconds, limit=limit):
                self._queue.block(limit, seconds)
                self._wait(entry, error, seconds, snoozes=True)
            case StopAccount():
                self.result.error = error
                self._queue.put(entry)
            case Park():
                self._park(entry, error)
            case _:
                assert_never(decision)

    def _note_failure(self, entry: Entry, decision: Decision) -> None:
        """Record the time of a task's first failure. Waits and stops are not failures."""
        if isinstance(decision, Retry | Defer | Park) and entry.first_failed is None:
            entry.first_failed = self._queue.clock

    def _wait(self, entry: Entry, error: Exception, seconds: float, *, snoozes: bool) -> None:
        entry.snoozes += snoozes
        entry.waits += not snoozes
        if snoozes and entry.first_failed is not None:
            entry.first_failed += seconds  # a task that is snoozed does not fail
        if entry.waits > MAX_WAITS:
            raise RuntimeError(
                "the task waits for PostgreSQL or Redis, which the harness does not have"
            ) from error
        self._queue.put(entry, seconds)

    def _park(self, entry: Entry, error: Exception) -> None:
        entry.state = TaskState.PARKED
        self.result.parked.append(Parked(entry.task, error, entry.attempts + 1))


def _place(listing: ListingRow) -> Listing:
    return Listing(listing.parent, moment(listing.since), moment(listing.until))
