"""A durable recursive tree, against what bare Dramatiq does for a no-op actor that sends to a second one."""

from __future__ import annotations

from benchmarks.engine import Engine, Testbed
from benchmarks.peers import bare
from benchmarks.report import Budget, Options, Report, ratio


def run(bed: Testbed, options: Options) -> Report:
    """Tasks/s of ours, chains/s of theirs."""
    ours, theirs = [], []
    pages, chains = options.size(100, 10), options.size(10_000, 1_000)
    with Engine(bed, "benchmarks.noop") as engine:
        for _ in range(options.rounds):
            theirs.append(bare.chains_per_second(bed, chains))
            ours.append(engine.tree(pages))
    budget = Budget("ratio to bare Dramatiq", ratio(ours, theirs), at_least=1.5)
    return Report("chain", "tasks/s", ours, theirs, "bare Dramatiq, chains of two no-op actors", [budget])
