"""Load 10,000 items of a service with 50 ms latency into PostgreSQL.

A page lists a hundred ids, and each item needs one more call.

Both sides have the same number of connections: as many as `polling up` has threads, and four times
as many. With few connections, the latency bounds both sides: the lower bound is
calls * latency / connections, which the table lists as the floor. With many connections, the
engines themselves bound the speed. This is the headline figure. The table also lists both sides
with their defaults: dlt's thread pool of 5, and our 16 threads.
"""

from __future__ import annotations

import statistics

from benchmarks.engine import PROCESSES, THREADS, Engine, Testbed
from benchmarks.peers import dlt
from benchmarks.report import Budget, Options, Report, ratio
from benchmarks.source import ITEMS, service

LATENCY = 0.05
FEW = PROCESSES * THREADS
MANY = 4 * FEW


def run(bed: Testbed, options: Options) -> Report:
    """Measure the seconds of both sides, by number of connections."""
    pages = options.size(100, 5)
    with Engine(bed, "benchmarks.listed") as engine, service(pages, LATENCY) as url:

        def rounds(number: int, ours: int, theirs: int | None) -> tuple[list[float], list[float]]:
            pairs = [
                (_seconds(engine, url, ours), dlt.seconds(bed, url, pages * ITEMS, theirs))
                for _ in range(number)
            ]
            return [one for one, _ in pairs], [other for _, other in pairs]

        figures = {
            f"{MANY} connections": rounds(options.rounds, MANY, MANY),
            f"{FEW} connections": rounds(1, FEW, FEW),
            f"defaults: {FEW} threads (ours), 5 (dlt)": rounds(1, FEW, None),
        }
    ours, theirs = figures[f"{MANY} connections"]
    budget = Budget(
        f"ratio to dlt's wall time, {MANY} connections each", ratio(ours, theirs), at_most=0.5
    )
    rows = [_row(name, *pair) for name, pair in figures.items()]
    calls = pages * (ITEMS + 1)
    floors = {
        f"floor of {number} connections, s": round(calls * LATENCY / number, 1)
        for number in (MANY, FEW, 5)
    }
    peer = f"dlt, {MANY} connections, into the same PostgreSQL"
    return Report(
        "dlt", "s", ours, theirs, peer, [budget], {"connections": rows, "floors": [floors]}
    )


def _seconds(engine: Engine, url: str, connections: int) -> float:
    account = engine.account("listed", url=url)
    with engine.workers(PROCESSES, connections // PROCESSES):
        _, seconds = engine.sync(account)
    engine.settle()
    return seconds


def _row(name: str, ours: list[float], theirs: list[float]) -> dict[str, str | float]:
    medians = {
        "ours, s": round(statistics.median(ours), 1),
        "dlt, s": round(statistics.median(theirs), 1),
    }
    return {"": name, **medians, "ratio": round(ratio(ours, theirs), 2)}
