"""The cost of 200 readers of the API and the dashboard to a sync on the same machine.

The sync is that of `dlt`: 10,000 items of a service that answers after 50 ms. `polling serve` runs
in all rounds, and has readers in every other round. Each reader sends a request every two seconds
on average, some 90 requests/s in total. One more round measures readers that never pause.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.clients import readers
from benchmarks.engine import PROCESSES, Engine, Testbed
from benchmarks.processes import program, wait_until
from benchmarks.report import Budget, Options, Report, ratio
from benchmarks.source import service
from core.service import tokens

LATENCY = 0.05
READERS = 200
REST = 2.0
"""The average number of seconds between two requests of a reader."""

CONNECTIONS = 64
"""The number of connections from the sync to its service, as in `dlt`."""

SERVE = [sys.executable, "-c", "from core.cli import main; main()", "serve", "--port", "0"]


def run(bed: Testbed, options: Options) -> Report:
    """Measure the items/s of the sync with readers and without."""
    pages, number = options.size(100, 5), options.size(READERS, 20)
    read: list[dict[str, Any]] = []
    with (
        Engine(bed, "benchmarks.listed") as engine,
        service(pages, LATENCY) as source,
        served(engine) as url,
    ):
        token = tokens.create(engine.conn, user_id=None).secret

        def beside(rest: float) -> float:
            with readers(url, token, number, rest) as seen:
                speed = _speed(engine, source)
            read.append(seen)
            return speed

        _speed(engine, source)  # gives the readers of the first round content too
        pairs = [(_speed(engine, source), beside(REST)) for _ in range(options.rounds)]
        blast = (_speed(engine, source), beside(0.0))
    alone, humane = [one for one, _ in pairs], [other for _, other in pairs]
    *rested, restless = read
    errors = sum(_errors(seen) + _refusals(seen) for seen in rested) + _errors(restless)
    budgets = [
        Budget("items/s with readers, relative to without", ratio(humane, alone), at_least=1 / 1.2),
        Budget(
            f"requests that failed or were rejected, with one request in {REST:g} s",
            errors,
            at_most=0,
        ),
    ]
    rows = [
        _row(f"one request in {REST:g} s", ratio(humane, alone), rested),
        _row("no pause between requests", blast[1] / blast[0], [restless]),
    ]
    return Report(
        "readers",
        "items/s",
        humane,
        alone,
        "the same sync without readers",
        budgets,
        {f"{number} readers": rows},
    )


@contextmanager
def served(engine: Engine) -> Iterator[str]:
    """Run `polling serve`, and yield its address."""
    log = engine.home / "serve.log"
    log.unlink(missing_ok=True)  # a kept folder has that of an earlier run
    with program(SERVE, engine.environment, log):
        wait_until(
            lambda: log.exists() and _address(log.read_text()),
            f"see {log}: the server did not start",
        )
        yield str(_address(log.read_text()))


def _address(said: str) -> str | None:
    found = re.search(r"[Tt]he API at (http://[\d.:]+\d)", said)
    return found and found[1]


def _speed(engine: Engine, source: str) -> float:
    account = engine.account("listed", url=source)
    with engine.workers(PROCESSES, CONNECTIONS // PROCESSES):
        tasks, seconds = engine.sync(account)
    engine.settle()
    return tasks / seconds


def _row(name: str, slower: float, seen: list[dict[str, Any]]) -> dict[str, Any]:
    figures = {
        key: statistics.median(one[key] for one in seen)
        for key in ("requests/s", "median, ms", "95th percentile, ms")
    }
    failed = {"rejected searches": sum(map(_refusals, seen)), "errors": sum(map(_errors, seen))}
    return {
        "each reader": name,
        "items/s, relative to without": round(slower, 2),
        **figures,
        **failed,
    }


def _refusals(seen: dict[str, Any]) -> int:
    """Number of searches that were rejected with a request to retry.

    Ten searches run concurrently; the server rejects the others to stay responsive.
    """
    return sum(number for status, number in seen["errors"].items() if status.startswith("503 "))


def _errors(seen: dict[str, Any]) -> int:
    return sum(seen["errors"].values()) - _refusals(seen)
