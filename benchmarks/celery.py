"""The same recursive no-op tree on Celery.

`benchmarks.peers.celery` describes how Celery is tuned, and which guarantees it lacks.
"""

from __future__ import annotations

from benchmarks.engine import Engine, Testbed
from benchmarks.peers import celery
from benchmarks.report import Budget, Options, Report, ratio


def run(bed: Testbed, options: Options) -> Report:
    """Measure the tasks/s of the engine and of Celery."""
    ours, theirs = [], []
    pages = options.size(100, 5)
    with Engine(bed, "benchmarks.noop") as engine:
        for _ in range(options.rounds):
            theirs.append(celery.tasks_per_second(bed, pages))
            ours.append(engine.tree(pages))
    budget = Budget("ratio to Celery", ratio(ours, theirs), at_least=5)
    return Report(
        "celery", "tasks/s", ours, theirs, "Celery on the same Valkey, no database", [budget]
    )
