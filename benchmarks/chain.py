"""A durable recursive tree, against what bare Dramatiq does for a no-op actor that sends to a second one."""

from __future__ import annotations

from benchmarks.engine import Engine, servers
from benchmarks.peers import bare
from benchmarks.report import Report

PAGES = 100


def run(rounds: int) -> Report:
    """Tasks/s of ours, chains/s of theirs."""
    ours, theirs = [], []
    with servers() as (urls, home):
        engine = Engine(urls, home)
        for _ in range(rounds):
            theirs.append(bare.chains_per_second(urls.redis_url))
            account = engine.account(pages=PAGES)
            with engine.workers():
                tasks, seconds = engine.sync(account)
            ours.append(tasks / seconds)
            engine.settle()
        engine.close()
    return Report("chain", "tasks/s", ours, theirs, "bare Dramatiq, chains of two no-op actors", "ratio >= 1.5")
