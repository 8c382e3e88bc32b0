"""Units that a task has taken: it starts while its budgets count them, or takes them again."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from core.db.pool import Database
from core.integration.limits import Rate
from core.ledger.outcomes import Dispatch
from core.limits.budgets import Budgets, UnitRequest
from core.results.decisions import RetryPolicy, Wait, decide
from core.results.signals import UnitsSpent
from core.transport.queues import Queues
from core.worker import grants
from core.worker.context import Services
from core.worker.inflight import InflightTasks
from core.worker.runner import Runner

LIMIT = Rate("q", 10, 5.0)


@pytest.fixture
def budgets(queues: Queues) -> Budgets:
    first = iter([True])
    return Budgets(queues.client, queues.key, lambda: next(first, False), queues.run_first)


@pytest.fixture
def task(desk: Any) -> Dispatch:
    dispatch: Dispatch = desk.root(desk.account())
    return dispatch


@pytest.fixture
def inflight(task: Dispatch) -> InflightTasks:
    inflight = InflightTasks()
    inflight.receive(task)
    inflight.start(task, 60.0)
    return inflight


def left(budgets: Budgets) -> int:
    return budgets.left([UnitRequest("k", LIMIT, 0)])["k"].units


def outlive(seconds: float) -> None:
    """Wait until units that were taken before this call are too old."""
    until = time.monotonic() + seconds
    while time.monotonic() <= until:
        time.sleep(0.01)


def test_a_task_that_starts_in_time_takes_its_units_once(
    budgets: Budgets, inflight: InflightTasks, task: Dispatch
) -> None:
    slow = Rate("q", 10, 5_000.0)
    assert grants.take(inflight, budgets, task, [UnitRequest("k", slow, 4)]) is None
    grants.renew(inflight, budgets, task)
    assert budgets.left([UnitRequest("k", slow, 0)])["k"].units == 6


def test_a_task_that_starts_late_takes_its_units_again(
    budgets: Budgets, inflight: InflightTasks, task: Dispatch
) -> None:
    assert grants.take(inflight, budgets, task, [UnitRequest("k", LIMIT, 4)]) is None
    outlive(0.1)
    grants.renew(inflight, budgets, task)
    assert left(budgets) == 2
    outlive(0.1)
    with pytest.raises(UnitsSpent) as spent:
        grants.renew(inflight, budgets, task)
    decision = decide(spent.value, task, RetryPolicy())
    assert isinstance(decision, Wait), "it counts no attempt"
    assert 4 < decision.seconds <= 5.1


def test_a_task_waits_if_redis_answers_too_late_each_time(
    budgets: Budgets, inflight: InflightTasks, task: Dispatch
) -> None:
    class Slow:
        def take(self, requests: Any) -> Any:
            outlive(0.1)
            return budgets.take(requests)

    slow: Any = Slow()
    assert grants.take(inflight, slow, task, [UnitRequest("k", LIMIT, 1)]) is None
    with pytest.raises(UnitsSpent):
        grants.renew(inflight, slow, task)
    assert left(budgets) == 10 - 1 - grants.MAX_TRIES


def test_a_task_waits_if_redis_is_away_when_it_starts(
    budgets: Budgets, inflight: InflightTasks, task: Dispatch
) -> None:
    assert grants.take(inflight, budgets, task, [UnitRequest("k", LIMIT, 1)]) is None
    outlive(0.1)

    def away(_: Any) -> None:
        raise redis.ConnectionError

    with pytest.raises(UnitsSpent) as spent:
        grants.renew(inflight, SimpleNamespace(take=away), task)  # type: ignore[arg-type]
    assert spent.value.seconds == grants.REDIS_AWAY_SECONDS


def test_units_that_became_too_old_in_initialize_are_taken_again(
    desk: Any,
    database: Database,
    egress: Any,
    budgets: Budgets,
    inflight: InflightTasks,
    task: Dispatch,
) -> None:
    """The instance stays, so that the next try does not connect again."""
    called: list[str] = []
    account = SimpleNamespace(id=task.account_id, public_hosts_only=False)
    loaded = SimpleNamespace(account=account)

    def run_task(*_: Any) -> None:
        raise AssertionError("the task ran with units that are too old")

    class Pool:
        release = staticmethod(lambda _: called.append("release"))
        discard = staticmethod(lambda _: called.append("discard"))

        def take(self, loaded: Any) -> Any:
            outlive(0.1)
            return SimpleNamespace(integration=SimpleNamespace(run_task=run_task))

    services = Services(
        database,
        SimpleNamespace(get=lambda *_: loaded),  # type: ignore[arg-type]
        desk.blobs,
        budgets,
        lambda _: False,
        egress,
        renew_units=lambda dispatch: grants.renew(inflight, budgets, dispatch),
    )
    runner = Runner(services, Pool(), SimpleNamespace())  # type: ignore[arg-type]
    assert grants.take(inflight, budgets, task, [UnitRequest("k", LIMIT, 6)]) is None
    with pytest.raises(UnitsSpent):
        runner.run(task)
    assert called == ["release"]
