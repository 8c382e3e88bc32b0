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
"""Seconds that a snapshot is reused, so that several scrapers cost one set of queries."""

COUNTERS = {
    "saves": ("Saving transactions", ()),
    "outputs_changed": ("Items created, changed or deleted", ("domain",)),
    "tasks": ("Tasks that ended, by the class of their error", ("domain", "state", "error")),
    "retries": ("Attempts that failed and are made again", ("domain", "error")),
    "snoozes": ("Tasks put back for later without counting an attempt", ("domain",)),
    "budget_waits": ("Tasks put back because a limit was used up", ("domain", "limit")),
    "budget_wait_seconds": ("How long they were put back", ("domain", "limit")),
    "runs": ("Runs that ended", ("domain", "lane", "state")),
}
"""What workers count: name, meaning, labels.

Each has the label `process`, as it begins at 0 with each.
"""


class Metrics:
    """Serves scrapes from a cached snapshot."""

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
        "Tasks that failed for good and wait for a person",
        ("domain", "error"),
        current.parked,
    )
    yield _gauge(
        "queue_age_seconds",
        "How long the oldest task that could run has waited",
        ("domain",),
        current.queue_age,
        "seconds",
    )
    yield _gauge("runs_open", "Runs that are open", ("domain", "lane"), current.runs)
    yield _gauge(
        "run_oldest_seconds",
        "Age of the oldest open run",
        ("domain", "lane"),
        current.runs,
        "oldest",
    )
    yield _gauge("accounts", "Connected accounts", ("domain", "status"), current.accounts)
    yield _gauge(
        "accounts_overdue",
        "Accounts that should have been polled by now",
        ("domain",),
        current.overdue,
    )
    yield _gauge("processes", "Processes that live", ("kind",), current.processes)
    yield _gauge("threads", "Their threads", ("kind",), current.processes, "threads")
    for name, about, number in (
        ("limits_blocked", "Limits that are used up or refused now", current.blocked),
        (
            "deletions_held",
            "Listings of which so much vanished that a person is asked",
            current.held,
        ),
        (
            "scheduler_silent_seconds",
            "Since the last tick of the scheduler",
            current.silent_seconds,
        ),
        ("dispatcher_leads", "Whether somebody dispatches", float(current.leads)),
        (
            "changes_held_back_seconds",
            "Age of the oldest writing transaction; the feed waits for it",
            current.horizon_seconds,
        ),
        (
            "changes_unsearchable",
            "Changes that are not searchable yet; counted up to 10,000",
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
    about = "Accounts by the seconds since their last run ended"
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
            if name in families:  # a worker of another version may count something else
                labels = [str(tags.get(label, "")) for label in COUNTERS[name][1]]
                families[name].add_metric([process["process"], *labels], number)
    yield from families.values()


def _durations(processes: Sequence[Row]) -> Metric:
    family = HistogramMetricFamily(
        "polling_run_seconds", "How long runs took", labels=("process", "domain", "lane")
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
