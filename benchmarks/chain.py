"""A durable recursive tree, against a bare Dramatiq actor that sends to a second actor."""

from __future__ import annotations

import statistics

from benchmarks.engine import Engine, Testbed
from benchmarks.peers import bare
from benchmarks.report import Budget, Options, Report, ratio

ACCOUNTS = (2, 4, 8)
"""Numbers of accounts that are synced concurrently; the budget applies to one account."""


def run(bed: Testbed, options: Options) -> Report:
    """Measure the tasks/s of the engine and the chains/s of bare Dramatiq."""
    ours, theirs = [], []
    several: dict[int, list[float]] = {accounts: [] for accounts in ACCOUNTS}
    pages, chains = options.size(100, 10), options.size(10_000, 1_000)
    with Engine(bed, "benchmarks.noop") as engine:
        for _ in range(options.rounds):
            theirs.append(bare.chains_per_second(bed, chains))
            ours.append(engine.tree(pages))
            for accounts, rates in several.items():
                rates.append(engine.tree(pages, accounts))
    budget = Budget("ratio to bare Dramatiq", ratio(ours, theirs), at_least=1.5)
    rows = [
        {
            "accounts synced concurrently": accounts,
            "tasks/s": statistics.median(rates),
            "ratio": ratio(rates, theirs),
        }
        for accounts, rates in ({1: ours} | several).items()
    ]
    peer = "bare Dramatiq, chains of two no-op actors"
    return Report("chain", "tasks/s", ours, theirs, peer, [budget], {"accounts": rows})
