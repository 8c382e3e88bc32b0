"""The hooks around a task fail closed, and never keep a task to themselves."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from dramatiq import Message
from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage

from core.errors import VaultError
from core.ledger.outcomes import Dispatch, Outcome
from core.messages import TaskMessage, dispatch_message, encode
from core.middleware.closed import TaskMiddleware
from core.middleware.dedup import Dedup
from core.middleware.leases import Leases
from core.middleware.rate_limit import RateLimit
from core.worker.accounts import LoadedAccount
from core.worker.budgets import Wait
from core.worker.figures import Figures
from core.worker.held import Held


@pytest.fixture
def message(dispatch: Callable[..., Dispatch]) -> Callable[..., MessageProxy]:
    return lambda **given: TaskMessage(Message.decode(dispatch_message(dispatch(**given)).encode()))


@pytest.fixture
def worker(process: Callable[..., Any], shop: Any, loaded: LoadedAccount) -> Any:
    """What stands for the worker process; `handed` is what was handed over."""
    handed: list[Outcome] = []
    registry = SimpleNamespace(integrations={"shop": shop}, get=lambda domain: shop)
    budgets = SimpleNamespace(take=lambda wanted: None)
    return process(
        held=Held(),
        registry=registry,
        settings=SimpleNamespace(task_time_limit=300.0),
        handed=handed,
        hand_over=handed.append,
        accounts=SimpleNamespace(get=lambda *_: loaded),
        figures=Figures(),
        budgets=budgets,
    )


class Broken(TaskMiddleware):
    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        raise ZeroDivisionError


def test_an_unexpected_error_before_a_task_skips_it_and_lets_its_lease_run_out(
    worker: Any, message: Any
) -> None:
    one = message()
    Dedup().before_process_message(None, one)  # type: ignore[arg-type]
    with pytest.raises(SkipMessage):
        Broken().before_process_message(None, one)  # type: ignore[arg-type]
    Leases().after_skip_message(None, one)  # type: ignore[arg-type]
    assert worker.held.to_renew() == []


def test_messages_of_other_actors_are_left_alone(worker: Any) -> None:
    Broken().before_process_message(
        None, MessageProxy(Message.decode(encode("q", "poll_due", "1", []).encode()))
    )


def test_a_second_delivery_is_skipped_and_disturbs_the_first_in_nothing(
    worker: Any, message: Any
) -> None:
    first, second = message(), message()
    Dedup().before_process_message(None, first)  # type: ignore[arg-type]
    with pytest.raises(SkipMessage):
        Dedup().before_process_message(None, second)  # type: ignore[arg-type]
    Leases().after_skip_message(None, second)  # type: ignore[arg-type]
    assert worker.held.running == 1


@pytest.fixture
def costly(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its step takes 3 units of the quota."""
    from dataclasses import replace

    monkeypatch.setattr(
        shop, "task_specs", {"step": replace(shop.task_specs["step"], cost={"quota": 3})}
    )


def test_a_task_without_a_cost_asks_nobody(worker: Any, message: Any) -> None:
    worker.budgets = None
    RateLimit().before_process_message(None, message())  # type: ignore[arg-type]


def test_a_budget_that_is_used_up_puts_the_task_back_and_blocks_the_limit(
    worker: Any, message: Any, costly: None
) -> None:
    asked: list[Any] = []
    worker.budgets.take = lambda wanted: asked.append(wanted) or Wait(0, 5.0)
    with pytest.raises(SkipMessage):
        RateLimit().before_process_message(None, message())  # type: ignore[arg-type]
    ((key, limit, units, heaviest),) = asked[0]
    assert (key, limit.name, units, heaviest) == ("group/shop/acme/quota", "quota", 3, 3)
    (outcome,) = worker.handed
    assert (
        outcome.state,
        outcome.snooze,
        outcome.attempt,
        outcome.block.key,
        outcome.block.seconds,
    ) == (
        "ready",
        1,
        0,
        key,
        5.0,
    )
    assert 5.0 < outcome.delay <= 5.6


def test_while_redis_is_away_a_costly_task_waits(worker: Any, message: Any, costly: None) -> None:
    import redis

    def away(wanted: Any) -> None:
        raise redis.ConnectionError

    worker.budgets.take = away
    with pytest.raises(SkipMessage):
        RateLimit().before_process_message(None, message())  # type: ignore[arg-type]
    assert [(outcome.state, outcome.block) for outcome in worker.handed] == [("ready", None)]


@pytest.mark.parametrize(
    "error",
    [
        VaultError("no key opens these credentials"),
        ZeroDivisionError(),
        SkipMessage("of the plugin's limits"),
    ],
)
def test_an_account_that_cannot_be_opened_is_for_the_task_to_report(
    worker: Any, message: Any, costly: None, error: Exception
) -> None:
    """Skipped here, it would come back for ever and its account would never stop."""

    def closed(*_: Any) -> None:
        raise error

    worker.accounts.get = closed
    RateLimit().before_process_message(None, message())  # type: ignore[arg-type]
    assert worker.handed == []


def test_a_second_suspect_waits_for_the_first(
    worker: Any, message: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    from core.middleware import leases

    begun: list[int] = []
    monkeypatch.setattr(leases, "start_suspect", lambda conn, task, number: not begun.append(task))
    worker.database = SimpleNamespace(connection=nullcontext)
    for one in (1, 2):
        Dedup().before_process_message(None, message(task_id=one, suspect=True))
    Leases().before_process_message(None, message(task_id=1, suspect=True))
    with pytest.raises(SkipMessage):
        Leases().before_process_message(None, message(task_id=2, suspect=True))
    assert begun == [1]
    assert [(outcome.state, outcome.suspect, outcome.attempt) for outcome in worker.handed] == [
        ("ready", True, 0)
    ]
