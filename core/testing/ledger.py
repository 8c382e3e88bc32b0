"""The harness's ledger: it commits results and handles errors by the engine's rules."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import JsonValue

from core.errors import (
    ConfigurationError,
    CredentialsInvalid,
    CursorExpired,
    PermanentError,
    RateLimited,
    SkipItem,
)
from core.integration.base import BaseIntegration
from core.integration.context import RunInfo
from core.integration.limits import AtOnce, Limit
from core.integration.results import Listing, Task
from core.testing.context import Account, HarnessContext
from core.testing.effects import Effects
from core.testing.outcome import Parked, SyncResult
from core.testing.queue import Entry, Queue, Run

MAX_SNOOZES = 50
MAX_CONFLICTS = 20
DAY = 86_400.0


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
        self._at_once = {limit.name for limit in limits if isinstance(limit, AtOnce)}
        self._runs: dict[str, Run] = {}

    # Runs

    def start(self, trigger: str, root: Task) -> None:
        """Begin a live run, unless one is still open."""
        if "live" not in self._runs:
            self._put(root, self._run("live", trigger))

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

    def _put(self, task: Task, run: Run) -> None:
        """Queue a task, unless its run had one with this key."""
        key = (
            task.key
            if task.key is not None
            else json.dumps([task.type, task.payload], sort_keys=True)
        )
        if key in run.keys:
            return None
        run.keys.add(key)
        entry = Entry(f"task-{self._account.tick()}", task, run, self._limits_of(task))
        if len(run.keys) > self._max_tasks:
            return self._park(
                entry, PermanentError(f"the run has more than {self._max_tasks} tasks")
            )
        return self._queue.put(entry)

    def _limits_of(self, task: Task) -> frozenset[str]:
        spec = self._integration.task_specs.get(task.type)
        cost = dict.fromkeys(self._at_once, 1) | dict(spec.cost if spec else {})
        return frozenset(name for name, units in cost.items() if units > 0)

    # What a result does

    def commit(self, entry: Entry, context: HarnessContext, effects: Effects) -> None:
        """Save the complete result.

        If another task changed the state that this one read, run this one again.
        """
        if self._conflicts(context, effects):
            return self._again(entry)
        self._write_content(context, effects)
        self._write_state(context.sequence, effects.state)
        self.tasks.extend(effects.returned)
        for task in effects.tasks:
            self._put(task, self._run("backfill", "schedule") if task.background else entry.run)
        for listing in effects.listed:
            self._sweep(listing, entry.run)
        for key in context.blob_keys:
            self._account.spool.forget(key)
        self.result.tasks_done += 1
        return None

    def _conflicts(self, context: HarnessContext, effects: Effects) -> bool:
        versions = self._account.versions
        return any(
            versions[name] != context.reads.get(name, versions[name]) for name in effects.state
        )

    def _again(self, entry: Entry) -> None:
        entry.conflicts += 1
        if entry.conflicts > MAX_CONFLICTS:
            return self._park(entry, PermanentError("other tasks change its state again and again"))
        return self._queue.put(entry)

    def _write_content(self, context: HarnessContext, effects: Effects) -> None:
        table, now = self._account.content, self._account.tick()
        for output in effects.output:
            change, rows = table.write(output, context.sequence, now)
            self.result.outputs[change] += rows
        table.touch(effects.seen, now)

    def _write_state(self, sequence: int, state: Mapping[str, JsonValue]) -> None:
        """Write partitions, except those with a writer that was dispatched later than this task."""
        account = self._account
        for partition, value in state.items():
            if account.writers.get(partition, 0) > sequence:
                continue
            account.writers[partition] = sequence
            account.versions[partition] += 1
            account.state[partition] = value
            if value is None:
                del account.state[partition]

    def _sweep(self, listing: Listing, run: Run) -> None:
        swept = self._account.content.sweep(
            listing, run.began, allow_deletions=self.allow_deletions
        )
        if swept is None:
            self.result.held.append(listing)
        else:
            self.result.outputs["deleted"] += swept

    # What an exception does

    def fail(self, entry: Entry, error: Exception) -> None:
        """Snooze, skip, stop, expire, park or retry, as the error asks."""
        self.result.failures.append(error)
        answers: list[tuple[type[Exception], Callable[[Entry, Any], None]]] = [
            (RateLimited, self._snooze),
            (SkipItem, self._skip),
            (CredentialsInvalid, self._stop),
            (ConfigurationError, self._stop),
            (CursorExpired, self._expire),
            (PermanentError, self._park),
            (Exception, self._retry),
        ]
        next(answer for kind, answer in answers if isinstance(error, kind))(entry, error)

    def _snooze(self, entry: Entry, error: RateLimited) -> None:
        entry.snoozes += 1
        if entry.snoozes > MAX_SNOOZES:
            return self._park(entry, error)
        seconds = error.retry_after if error.retry_after is not None else 2.0**entry.snoozes
        seconds = 1.0 if math.isnan(seconds) else min(max(seconds, 1.0), DAY)
        self._queue.block(error.limit, seconds)
        return self._queue.put(entry, seconds)

    # All answers are called alike.
    def _skip(self, entry: Entry, error: SkipItem) -> None:  # noqa: ARG002
        self.result.tasks_done += 1
        self.result.skipped.append(str(error))

    def _stop(self, entry: Entry, error: Exception) -> None:
        self.result.error = error
        self._queue.put(entry)

    def _expire(self, entry: Entry, error: CursorExpired) -> None:
        if entry.run.info.trigger == "resync":
            return self._park(entry, error)
        self._write_state(self._account.tick(), {error.partition: None})
        self.result.tasks_done += 1
        self.resync = True
        return None

    def _retry(self, entry: Entry, error: Exception) -> None:
        if entry.attempt >= self._max_attempts:
            return self._park(entry, error)
        entry.attempt += 1
        return self._queue.put(entry, 2.0 ** (entry.attempt - 1))

    def _park(self, entry: Entry, error: Exception) -> None:
        self.result.parked.append(Parked(entry.task, error, entry.attempt))
