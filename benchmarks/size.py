"""Memory of Valkey and of the workers for runs of 1,000, 10,000 and 100,000 tasks.

The benchmark also measures the time per task for each size.
"""

from __future__ import annotations

import time
from typing import Any

import redis

from benchmarks.engine import Engine, Testbed
from benchmarks.noop import ITEMS
from benchmarks.processes import family, resident_bytes
from benchmarks.report import Budget, Options, Report

TASKS = (1_000, 10_000, 100_000)
MIB = 2**20
POINTS = 200

Sample = tuple[float, float, float]
"""The seconds since the start, the MiB of Valkey, and the MiB of all workers together."""


def run(bed: Testbed, options: Options) -> Report:
    """Measure Valkey's peak memory in MiB, memory over time, and milliseconds per task."""
    sizes = TASKS[: options.size(len(TASKS), 2)]
    rows: list[dict[str, Any]] = []
    samples: list[Sample] = []
    with (
        Engine(bed, "benchmarks.noop") as engine,
        redis.Redis.from_url(bed.urls.redis_url) as client,
    ):
        with engine.workers() as pid:
            for tasks in sizes:
                samples, done, seconds = _run(engine, client, pid, tasks)
                rows.append(_row(done, seconds, samples))
                engine.settle()
        peak = client.info("memory")["used_memory_peak"] / MIB
    workers = [sample[2] for sample in samples]
    half, quarter = len(workers) // 2, max(1, len(workers) // 4)
    growth = max(workers[-quarter:]) / max(workers[quarter : half + 1])
    budgets = [
        Budget("peak of Valkey, MiB", peak, at_most=30),
        Budget(
            "workers' memory in the last quarter, relative to the second quarter",
            growth,
            at_most=1.1,
        ),
        Budget(
            f"time per task of {rows[-1]['tasks']:,} tasks, relative to {rows[0]['tasks']:,} tasks",
            _growth(rows),
            at_most=1.2,
        ),
    ]
    thinned = samples[:: len(samples) // POINTS + 1]
    return Report("size", "MiB", [peak], budgets=budgets, details={"runs": rows, "memory": thinned})


def _run(
    engine: Engine, client: redis.Redis, pid: int, tasks: int
) -> tuple[list[Sample], int, float]:
    """Execute one run; return its samples, tasks and seconds."""
    run = engine.start(engine.account(pages=tasks // ITEMS))
    workers, begun = family(pid), time.perf_counter()
    samples: list[Sample] = []
    while (end := engine.ended(run)) is None or not samples:
        memory = client.info("memory")["used_memory"] / MIB
        resident = sum(resident_bytes(workers)) / MIB
        samples.append(
            (round(time.perf_counter() - begun, 2), round(memory, 2), round(resident, 1))
        )
        time.sleep(0.1)
    return samples, *end


def _row(tasks: int, seconds: float, samples: list[Sample]) -> dict[str, Any]:
    return {
        "tasks": tasks,
        "seconds": round(seconds, 1),
        "ms per task": round(1000 * seconds / tasks, 3),
        "Valkey, MiB": max(sample[1] for sample in samples),
        "workers, MiB": max(sample[2] for sample in samples),
    }


def _growth(rows: list[dict[str, Any]]) -> float:
    return float(rows[-1]["ms per task"] / rows[0]["ms per task"])
