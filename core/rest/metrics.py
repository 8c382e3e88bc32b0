"""Prometheus metrics: the database's current state, and the counters of each worker process."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from core.db.rows import Row
from core.metrics.counters import BUCKETS
from core.service.backend import Backend
from core.service.fleet import snapshot
from core.service.fleet.snapshot import FRESHNESS, Snapshot

CACHE_SECONDS = 5.0
"""The number of seconds that a snapshot is reused, so that several scrapers share its queries."""

COUNTERS = {
    "saves": ("Saving transactions", ()),
    "outputs_changed": ("Items created, changed or deleted", ("domain",)),
    "tasks": ("Finished tasks, by state and error class", ("domain", "state", "error")),
    "retries": ("Failed attempts that are retried", ("domain", "error")),
    "snoozes": ("Snoozes: tasks postponed without counting an attempt", ("domain",)),
    "budget_waits": ("Tasks postponed because a limit was exhausted", ("domain", "limit")),
    "budget_wait_seconds": (
        "Seconds by which exhausted limits postponed tasks",
        ("domain", "limit"),
    ),
    "runs": ("Finished runs", ("domain", "lane", "state")),
}
"""The counters of workers: description and labels, by name.

Each counter also has the label `process`, because it starts at 0 in each process.
"""


USE = {
    "polls": "Polls of a user today (UTC)",
    "tasks": "Tasks of a user that ended today (UTC)",
    "thread_seconds": "Seconds that tasks of a user have held threads today (UTC)",
    "bytes_in": "Bytes of content that tasks of a user have returned today (UTC)",
    "bytes_kept": "The part of these bytes that was new or had changed",
}
"""The gauges of users: the largest 20 by name, and all others as the user with an empty name."""


class Metrics:
    """Metrics that are rendered from a cached snapshot."""

    MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._text = ""
        self._collected_at = -CACHE_SECONDS

    def text(self) -> str:
        """Return all metrics in Prometheus's text format."""
        with self._lock:
            if time.monotonic() - self._collected_at >= CACHE_SECONDS:
                with self._backend.database.connection() as conn:
                    current = snapshot.collect(conn, self._backend.settings)
                self._text, self._collected_at = render(current), time.monotonic()
            return self._text


def render(current: Snapshot) -> str:
    """Render a snapshot in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(current))
    return generate_latest(registry).decode()


class _SnapshotCollector(Collector):
    def __init__(self, current: Snapshot) -> None:
        self._snapshot = current

    def collect(self) -> Iterable[Metric]:
        yield from _gauges(self._snapshot)
        yield from _fresh(self._snapshot.ages)
        yield from _counted(self._snapshot.counted)
        yield _durations(self._snapshot.counted)


def _gauges(current: Snapshot) -> Iterator[Metric]:
    yield _gauge("tasks", "Open tasks", ("domain", "state"), current.tasks)
    yield _gauge(
        "tasks_parked",
        "Parked tasks",
        ("domain", "error"),
        current.parked,
    )
    yield _gauge("tasks_deferred", "Tasks to be tried again later", ("domain",), current.deferred)
    yield _gauge(
        "breakers_open",
        "Accounts that do not answer, or whose limit does not answer",
        ("domain", "limit"),
        current.breakers,
    )
    yield _gauge(
        "queue_age_seconds",
        "Seconds that the oldest ready task of an active account has waited",
        ("domain",),
        current.queue_age,
        "seconds",
    )
    yield _gauge("runs_open", "Open runs", ("domain", "lane"), current.runs)
    yield _gauge(
        "run_oldest_seconds",
        "Age of the oldest open run in seconds",
        ("domain", "lane"),
        current.runs,
        "oldest",
    )
    yield _gauge("accounts", "Connected accounts", ("domain", "status"), current.accounts)
    yield _gauge(
        "accounts_overdue",
        "Overdue accounts",
        ("domain",),
        current.overdue,
    )
    yield _gauge("processes", "Running processes", ("kind",), current.processes)
    yield _gauge("threads", "Threads of running processes", ("kind",), current.processes, "threads")
    for column, about in USE.items():
        yield _gauge(f"user_{column}_today", about, ("user",), current.use, column)
    for name, about, number in (
        ("limits_blocked", "Limits that are exhausted or blocked", current.blocked),
        (
            "deletions_held",
            "Held deletions, which wait to be accepted",
            current.held,
        ),
        (
            "scheduler_silent_seconds",
            "Seconds since the last tick of the scheduler",
            current.silent_seconds,
        ),
        ("dispatcher_leads", "1 if a dispatcher leads, otherwise 0", float(current.leads)),
        (
            "changes_held_back_seconds",
            "Age in seconds of the oldest open write transaction, for which the change feed waits",
            current.horizon_seconds,
        ),
        (
            "changes_unsearchable",
            "Changes that are not searchable yet, counted up to 10,000",
            current.unsearchable,
        ),
    ):
        gauge = GaugeMetricFamily(f"polling_{name}", about)
        gauge.add_metric((), number)
        yield gauge


def _gauge(
    name: str, about: str, labels: Sequence[str], rows: Sequence[Row], value: str = "number"
) -> Metric:
    gauge = GaugeMetricFamily(f"polling_{name}", about, labels=labels)
    for row in rows:
        gauge.add_metric([str(row[label]) for label in labels], float(row[value]))
    return gauge


def _fresh(ages: Sequence[Row]) -> Iterator[Metric]:
    about = "Accounts by the number of seconds since their last run ended"
    fresh = GaugeHistogramMetricFamily("polling_account_age_seconds", about, labels=("domain",))
    for domain, rows in itertools.groupby(ages, key=lambda row: row["domain"]):
        counts, total = [0] * (len(FRESHNESS) + 1), 0.0
        for row in rows:
            counts[row["bucket"]] += row["number"]
            total += row["seconds"]
        bounds = [*map(str, FRESHNESS), "+Inf"]
        fresh.add_metric(
            [domain], list(zip(bounds, itertools.accumulate(counts), strict=True)), total
        )
    yield fresh


def _counted(processes: Sequence[Row]) -> Iterator[Metric]:
    families = {
        name: CounterMetricFamily(f"polling_{name}", about, labels=("process", *labels))
        for name, (about, labels) in COUNTERS.items()
    }
    for process in processes:
        for name, tags, number in process["counters"]:
            if name in families:  # a worker of another version may have other counters
                labels = [str(tags.get(label, "")) for label in COUNTERS[name][1]]
                families[name].add_metric([process["process"], *labels], number)
    yield from families.values()


def _durations(processes: Sequence[Row]) -> Metric:
    family = HistogramMetricFamily(
        "polling_run_seconds", "Duration of runs in seconds", labels=("process", "domain", "lane")
    )
    for process in processes:
        counts: dict[tuple[str, str], dict[str, float]] = {}
        for name, tags, number in process["counters"]:
            if name in ("run_seconds", "run_seconds_sum"):
                counts.setdefault((tags["domain"], tags["lane"]), {})[tags.get("le", "sum")] = (
                    number
                )
        for (domain, lane), buckets in sorted(counts.items()):
            bounds = [*map(str, BUCKETS), "+Inf"]
            filled = zip(
                bounds, itertools.accumulate(buckets.get(bound, 0) for bound in bounds), strict=True
            )
            family.add_metric(
                [process["process"], domain, lane], list(filled), buckets.get("sum", 0)
            )
    return family
