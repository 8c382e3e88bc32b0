"""Latency from a trigger to the first row that another connection sees.

The trigger is the call that `polling sync` makes, on an idle system.

The sync has two steps: the root task, and the page that it requests. The peer has two steps too.
Another figure is the latency from a hint, as the listener of a plugin adds it.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from uuid import UUID

from benchmarks.engine import Engine, Testbed
from benchmarks.peers import stock
from benchmarks.report import Budget, Options, Report
from core.environment import Environment
from core.ledger import hints
from core.service.backend import Backend, open_backend
from core.service.runs import actions as run_actions
from core.settings import Settings

TRIGGERS = 50
KEPT = "SELECT EXISTS (SELECT FROM user_integration_content WHERE user_integration_id = %s)"
PAUSE = (0.5, 1.5)
"""The range of seconds to wait before each trigger, so that every consumer is asleep."""


def run(bed: Testbed, options: Options) -> Report:
    """Measure the milliseconds after each trigger, alternating between both sides."""
    ours, theirs, hinted = [], [], []
    with Engine(bed) as engine, engine.workers(), stock.workers(bed) as peer:
        backend = _backend(engine)
        for _ in range(options.size(TRIGGERS, 5) + 1):
            account = engine.account("hello-world", pages=1, items=10)
            ours.append(
                _milliseconds(
                    lambda: run_actions.sync(backend, account),  # noqa: B023  called in this iteration
                    lambda: _kept(engine, account),  # noqa: B023
                )
            )
            theirs.append(_milliseconds(peer.trigger, peer.arrived))
            account = engine.account("hello-world", pages=1, items=10)
            hinted.append(
                _milliseconds(
                    lambda: _hint(backend, account),  # noqa: B023
                    lambda: _kept(engine, account),  # noqa: B023
                )
            )
        backend.close()
    ours, theirs, hinted = ours[1:], theirs[1:], hinted[1:]  # the first trigger loads code
    budget = Budget("our median, ms", statistics.median(ours), at_most=60)
    most = Budget("the slowest hint, ms", max(hinted), at_most=1_000)
    rows = [_row("ours", ours), _row("ours, from a hint", hinted), _row("stock consumer", theirs)]
    peer_name = "bare Dramatiq with its stock consumer, two actors and an INSERT"
    return Report("latency", "ms", ours, theirs, peer_name, [budget, most], {"spread": rows})


def _milliseconds(trigger: Callable[[], object], arrived: Callable[[], bool]) -> float:
    time.sleep(random.uniform(*PAUSE))
    begun = time.perf_counter()
    trigger()
    while not arrived():
        time.sleep(0.001)
    return (time.perf_counter() - begun) * 1000


def _hint(backend: Backend, account: UUID) -> None:
    with backend.database.connection() as conn:
        hints.add(conn, account)
    backend.wake()


def _kept(engine: Engine, account: UUID) -> bool:
    row = engine.conn.execute(KEPT, (account,)).fetchone()
    return row is not None and bool(row[0])


def _backend(engine: Engine) -> Backend:
    key = engine.environment["POLLING_SECRET_KEYS"]
    settings = Settings(_env_file=None, home=engine.home)
    return open_backend(
        settings,
        Environment(engine.urls.database_url, engine.urls.redis_url, (key,), embedded=False),
    )


def _row(name: str, times: list[float]) -> dict[str, object]:
    ordered = sorted(times)
    p95 = ordered[min(len(ordered) - 1, round(len(ordered) * 0.95))]
    figures = {"median": statistics.median(ordered), "95th percentile": p95, "slowest": ordered[-1]}
    return {"": name} | {f"{label}, ms": round(figure, 1) for label, figure in figures.items()}
