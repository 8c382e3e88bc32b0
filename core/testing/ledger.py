"""What becomes of each task of the harness: results are committed, and errors do what
`core.results` decides.
"""

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
    Done,
    Expired,
    Park,
    Retry,
    Snooze,
    StopAccount,
    Wait,
    decide,
)
from core.results.parking import snoozed_too_long
from core.results.rows import ListingRow, ResultRows, StateRow
from core.testing.content import moment
from core.testing.context import Account, HarnessContext
from core.testing.outcome import Parked, SyncResult
from core.testing.queue import Entry, Queue, Run

MAX_WAITS = 1_000
"""How often a task may wait for a server of the engine, of which the harness has none."""


class Ledger:
    """The runs and tasks of one account.

    Attributes:
      result: What the sync under way has come to so far.
      resync: Whether a task has asked for one.
      allow_deletions: Whether a sweep may take more than the guard allows.
      tasks: Every task that was returned and kept, before JSON.
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
        self.allow_deletions = False
        self.tasks: list[Task] = []
        self._account, self._integration, self._queue = account, integration, queue
        self._max_attempts, self._max_tasks = max_attempts, max_tasks
        self._at_once = {limit.name for limit in limits if isinstance(limit, Concurrency)}
        self._runs: dict[str, Run] = {}

    # Runs

    def start(self, trigger: str, root: Task) -> None:
        """Begin a live run, unless one is still open."""
        if "live" not in self._runs:
            self._put(root, root.type, self._run("live", trigger))

    def finish(self) -> None:
        """All is done: the runs are over."""
        self._runs.clear()

    def _run(self, lane: str, trigger: str) -> Run:
        """The open run of a lane, or a new one."""
        if lane not in self._runs:
            began = self._account.tick()
            self._runs[lane] = Run(RunInfo(f"run-{began}", trigger, lane), began)
            self.result.runs.append(self._runs[lane].info)
        return self._runs[lane]

    def _put(self, task: Task, key: str, run: Run) -> None:
        """Queue a task, unless its run had one with this key."""
        if key not in run.keys:
            run.keys.add(key)
            self._queue.put(Entry(f"task-{self._account.tick()}", task, run, self._limits_of(task)))

    def _limits_of(self, task: Task) -> frozenset[str]:
        spec = self._integration.task_specs.get(task.type)
        cost = dict.fromkeys(self._at_once, 1) | dict(spec.cost if spec else {})
        return frozenset(name for name, units in cost.items() if units > 0)

    # What a result does

    def commit(
        self, entry: Entry, context: HarnessContext, rows: ResultRows, returned: Sequence[Task]
    ) -> None:
        """Keep all of a result; or run the task again if another one changed the state that it
        read.

        Parameters:
          returned: The follow-ups as the plugin made them.
        """
        if rows.tasks and len(entry.run.keys) > self._max_tasks:
            return self._park(
                entry, PermanentError(f"the run has more than {self._max_tasks} tasks")
            )
        if self._conflicts(rows):
            return self._queue.put(entry, CONFLICT_SECONDS)
        account, sequence = self._account, context.sequence
        self.result.outputs.update(
            account.content.write(rows, entry.run.info.id, sequence, account.tick())
        )
        for state in rows.states:
            self._write_state(sequence, state)
        for listing in rows.listed:
            self._sweep(listing, entry.run, sequence)
        self._add_tasks(entry, rows, returned)
        for key in context.blob_keys:
            account.spool.delete(key)
        self.result.tasks_done += 1
        return None

    def _conflicts(self, rows: ResultRows) -> bool:
        versions = self._account.versions
        return any(
            state.read is not None and versions[state.partition] != state.read
            for state in rows.states
        )

    def _add_tasks(self, entry: Entry, rows: ResultRows, returned: Sequence[Task]) -> None:
        self.tasks.extend(returned)
        for row, made in zip(rows.tasks, returned, strict=True):
            # As it comes back from JSON.
            task = replace(
                made, payload=row.payload, priority=row.priority, background=row.background
            )
            run = self._run("backfill", entry.trigger) if row.background else entry.run
            self._put(task, row.key, run)

    def _write_state(self, sequence: int, state: StateRow) -> None:
        """Write a partition; a task that was dispatched before the last writer of one, and has not
        read it, has nothing to say there.
        """
        account, partition = self._account, state.partition
        if state.read is None and account.writers.get(partition, 0) > sequence:
            return
        account.writers[partition] = max(sequence, account.writers.get(partition, 0))
        account.versions[partition] += 1
        account.state[partition] = state.value
        if state.value is None:
            del account.state[partition]

    def _sweep(self, listing: ListingRow, run: Run, sequence: int) -> None:
        account = self._account
        swept = account.content.sweep(
            listing, run.info.id, run.began, sequence, account.tick(), allow=self.allow_deletions
        )
        place = Listing(listing.parent, moment(listing.since), moment(listing.until))
        # A later listing of the same place answers what was held.
        held = [each for each in self.result.held if each != place]
        self.result.held = [*held, place] if swept is None else held
        self.result.outputs["deleted"] += swept or 0

    # What an exception does

    def fail(self, entry: Entry, error: Exception) -> None:
        """Do what `core.results.decisions` says of this error; waits take their longest."""
        self.result.failures.append(error)
        decision = decide(error, entry, self._max_attempts, draw=max)
        match decision:
            case Done(reason=reason):
                self.result.tasks_done += 1
                self.result.skipped.append(reason)
            case Expired(partition=partition):
                self._write_state(self._account.tick(), StateRow(partition, None, expired=True))
                self.result.tasks_done += 1
                self.resync = True
            case Retry(seconds=seconds):
                entry.attempts += 1
                self._queue.put(entry, seconds)
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

    def _wait(self, entry: Entry, error: Exception, seconds: float, *, snoozes: bool) -> None:
        if snoozes and snoozed_too_long(entry.snoozed, seconds):
            return self._park(entry, error)
        entry.snoozes += snoozes
        entry.snoozed += seconds if snoozes else 0.0
        entry.waits += not snoozes
        if entry.waits > MAX_WAITS:
            raise RuntimeError(
                "the task waits for a server that the harness does not have"
            ) from error
        return self._queue.put(entry, seconds)

    def _park(self, entry: Entry, error: Exception) -> None:
        self.result.parked.append(Parked(entry.task, error, entry.attempts + 1))
