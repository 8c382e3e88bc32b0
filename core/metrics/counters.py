"""Counters of a worker process for `/metrics`, in memory. Each heartbeat writes them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from core.ledger.commit import CommitResult
from core.ledger.completion import Run
from core.ledger.outcomes import Outcome
from core.metrics.use import UseCounters
from core.states import TaskState

BUCKETS = (1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400)
"""Bounds of the histogram of the duration of runs, in seconds."""

MAX_SERIES = 2_000
"""The maximum number of series of one process.

Error classes come from plugins, so their number is otherwise unbounded.
"""

Key = tuple[str, tuple[tuple[str, str], ...]]


class Counters:
    """Counters by name and labels. They only increase, and start at 0 in each process.

    Attributes:
      use: The use of users since the latest heartbeat.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Key, float] = {}
        self._reported = (0, 0)
        self.use = UseCounters()

    def count(self, name: str, number: float = 1, /, **labels: str) -> None:
        """Increase a counter."""
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            if key in self._counts or len(self._counts) < MAX_SERIES:
                self._counts[key] = self._counts.get(key, 0) + number

    def count_commits(self, commits: Sequence[CommitResult], ended: Sequence[Run]) -> None:
        """Count the results of a batch, and the runs that ended with it."""
        self.count("saves", len(commits))
        self.use.saved(commits)
        for commit in commits:
            for outcome, state in commit.applied:
                self._task(outcome, state)
            for (_, domain), ids in commit.changed.items():
                self.count("outputs_changed", len(ids), domain=domain)
        self.ended(ended)

    def ended(self, runs: Sequence[Run]) -> None:
        """Count runs that this process has ended."""
        for run in runs:
            self._run(run)

    def _task(self, outcome: Outcome, state: str) -> None:
        domain = outcome.dispatch.domain
        if outcome.snooze:
            self.count("snoozes", domain=domain)
        elif state == TaskState.READY:
            self.count("retries", domain=domain, error=error_class(outcome.error))
        else:
            self.count("tasks", domain=domain, state=state, error=error_class(outcome.error))

    def _run(self, run: Run) -> None:
        seconds = (run["finished_at"] - run["started_at"]).total_seconds()
        labels = {"domain": run["integration_domain"], "lane": run["lane"]}
        self.count("runs", state=run["state"], **labels)
        self.count("run_seconds_sum", seconds, **labels)
        bound = next((str(bound) for bound in BUCKETS if seconds <= bound), "+Inf")
        self.count("run_seconds", le=bound, **labels)

    def take_throughput(self) -> tuple[int, int]:
        """Return the tasks that ended and the rows that changed since the last call."""
        with self._lock:
            before, self._reported = (
                self._reported,
                (self._total("tasks"), self._total("outputs_changed")),
            )
        return self._reported[0] - before[0], self._reported[1] - before[1]

    def restore_throughput(self, tasks: int, rows: int) -> None:
        """Add numbers that could not be recorded to the next result of `take_throughput`."""
        with self._lock:
            self._reported = (self._reported[0] - tasks, self._reported[1] - rows)

    def _total(self, name: str) -> int:
        numbers = (number for (counter, _), number in self._counts.items() if counter == name)
        return int(sum(numbers))

    def written(self) -> list[list[Any]]:
        """Return the counters as JSON: a list of name, labels and number."""
        with self._lock:
            return [[name, dict(labels), number] for (name, labels), number in self._counts.items()]


def error_class(text: str | None) -> str:
    """Return the class of an error that the ledger stores as `Name: message`.

    The result is `other` if the text begins with something else, so that no data becomes a label.
    It is empty without an error.
    """
    name = (text or "").partition(":")[0]
    return name if name.isidentifier() and len(name) <= 80 else ("other" if text else "")
