"""The same recursive no-op tree on Procrastinate.

`benchmarks.peers.procrastinate` describes how Procrastinate is tuned.
"""

from __future__ import annotations

from benchmarks.engine import Engine, Testbed
from benchmarks.peers import procrastinate
from benchmarks.report import Budget, Options, Report, ratio


def run(bed: Testbed, options: Options) -> Report:
    """Measure the tasks/s of the engine and of Procrastinate."""
    ours, theirs = [], []
    pages = options.size(50, 5)
    with Engine(bed, "benchmarks.noop") as engine:
        for _ in range(options.rounds):
            theirs.append(procrastinate.tasks_per_second(bed, pages))
            ours.append(engine.tree(pages))
    budget = Budget("ratio to Procrastinate", ratio(ours, theirs), at_least=5)
    return Report(
        "procrastinate", "tasks/s", ours, theirs, "Procrastinate on the same PostgreSQL", [budget]
    )
