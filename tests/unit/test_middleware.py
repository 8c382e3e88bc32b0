"""The middleware around a task: on an error it skips the task, and never keeps it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from dramatiq import Message
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from core.broker import PollingBroker
from core.errors import VaultError
from core.ledger.outcomes import Dispatch, Outcome
from core.limits.budgets import Exhausted
from core.metrics.counters import Counters
from core.middleware import leases as module
from core.middleware.base import TaskMiddleware
from core.middleware.dedup import Dedup
from core.middleware.leases import Leases
from core.middleware.lifecycle import Lifecycle
from core.middleware.rate_limit import RateLimit
from core.middleware.time_limit import TimeLimit
from core.transport.messages import TaskMessage, dispatch_message, encode
from core.transport.queues import Queues
from core.worker.accounts import LoadedAccount
from core.worker.inflight import InflightTasks
from core.worker.work_queue import WorkQueue


@pytest.fixture
def message(dispatch: Callable[..., Dispatch], worker: Any) -> Callable[..., MessageProxy]:
    """Return `message(task_id=…)`, which makes a message that this process has received."""

    def make(**given: Any) -> MessageProxy:
        one = dispatch(**given)
        worker.inflight.receive(one)
        return TaskMessage(Message.decode(dispatch_message(one).encode()))

    return make


@pytest.fixture
def worker(shop: Any, loaded: LoadedAccount) -> Any:
    """Return the parts of a worker process; `handed` collects the outcomes for the saver."""
    handed: list[Outcome] = []
    registry = SimpleNamespace(integrations={"shop": shop}, get=lambda domain: shop)
    budgets = SimpleNamespace(take=lambda wanted: None)
    return SimpleNamespace(
        inflight=InflightTasks(),
        database=SimpleNamespace(connection=nullcontext),
        registry=registry,
        handed=handed,
        accounts=SimpleNamespace(get=lambda *_: loaded),
        counters=Counters(),
        budgets=budgets,
    )


@pytest.fixture
def dedup(worker: Any) -> Dedup:
    time_limit = TimeLimit(worker.inflight, worker.registry, 300.0, threading.Event())
    return Dedup(worker.inflight, time_limit)


@pytest.fixture
def leases(worker: Any) -> Leases:
    return Leases(worker.inflight, worker.database, worker.handed.append)


@pytest.fixture
def rate_limit(worker: Any) -> RateLimit:
    return RateLimit(
        worker.inflight,
        worker.registry,
        worker.accounts,
        worker.budgets,
        worker.counters,
        worker.handed.append,
    )


class Broken(TaskMiddleware):
    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        raise ZeroDivisionError


def test_an_unexpected_error_before_a_task_skips_it_without_renewal(
    worker: Any, message: Any, dedup: Dedup, leases: Leases
) -> None:
    one = message()
    dedup.before_process_message(None, one)  # type: ignore[arg-type]
    with pytest.raises(SkipMessage):
        Broken(worker.inflight).before_process_message(None, one)  # type: ignore[arg-type]
    leases.after_skip_message(None, one)  # type: ignore[arg-type]
    assert worker.inflight.active_leases() == []


class Recorded(Middleware):
    """A middleware that records its calls, and may fail."""

    def __init__(self, name: str, calls: list[str], error: Exception | None = None) -> None:
        self.name, self.calls, self.error = name, calls, error

    def before_process_message(self, *_: object) -> None:
        self._called("before")

    def after_process_message(self, *_: object, **__: object) -> None:
        self._called("after")

    def _called(self, when: str) -> None:
        self.calls.append(f"{when} {self.name}")
        if self.error is not None:
            raise self.error


@pytest.fixture
def broker(worker: Any) -> Callable[..., PollingBroker]:
    """Return `broker(middleware, …)`, which makes a broker that never connects."""

    def make(*middleware: Middleware) -> PollingBroker:
        queues = Queues("unix:///nowhere", "test")
        return PollingBroker(
            queues, [*middleware], inflight=worker.inflight, accepting=lambda: False
        )

    return make


def test_a_message_costs_no_call_of_an_empty_hook(
    worker: Any,
    message: Any,
    broker: Callable[..., PollingBroker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    empty = [(Middleware, name) for name in vars(Middleware) if name[:6] in ("before", "after_")]
    empty += [(TaskMiddleware, name) for name in ("before", "after", "skipped")]
    for owner, name in empty:
        call = partial(calls.append, f"the empty {name}")
        monkeypatch.setattr(owner, name, lambda *_, _call=call, **__: _call())

    class Acting(TaskMiddleware):
        """A middleware that acts before a task only."""

        def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
            calls.append("acts")

    made = broker(Recorded("a", calls), Acting(worker.inflight), Acting(worker.inflight))
    one = message()
    made.emit_before("process_message", one)
    made.emit_after("process_message", one)
    made.emit_before("ack", one)
    made.emit_after("ack", one)
    assert calls == ["before a", "acts", "acts", "after a"]


def test_hooks_run_in_the_order_of_the_middleware_and_back(
    broker: Callable[..., PollingBroker], caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    made = broker(Recorded("a", calls, ZeroDivisionError()))
    made.emit_before("process_message", None)
    made.add_middleware(Recorded("b", calls))
    made.emit_before("process_message", None)
    made.emit_after("process_message", None)
    assert calls == ["before a", "before a", "before b", "after b", "after a"]
    failures = [each for each in caplog.records if each.levelname == "CRITICAL"]
    assert [each.exc_info and each.exc_info[0] for each in failures] == [ZeroDivisionError] * 3


def test_a_hook_that_skips_a_message_ends_the_hooks(broker: Callable[..., PollingBroker]) -> None:
    calls: list[str] = []
    made = broker(Recorded("a", calls, SkipMessage()), Recorded("b", calls))
    with pytest.raises(SkipMessage):
        made.emit_before("process_message", None)
    assert calls == ["before a"]


def test_messages_of_other_actors_are_ignored(worker: Any) -> None:
    Broken(worker.inflight).before_process_message(
        None, MessageProxy(Message.decode(encode("q", "poll_due", "1", []).encode()))
    )


def test_a_second_delivery_is_skipped_without_effect_on_the_first(
    worker: Any, message: Any, dedup: Dedup, leases: Leases
) -> None:
    first, second = message(), message()
    dedup.before_process_message(None, first)  # type: ignore[arg-type]
    with pytest.raises(SkipMessage):
        dedup.before_process_message(None, second)  # type: ignore[arg-type]
    leases.after_skip_message(None, second)  # type: ignore[arg-type]
    assert worker.inflight.running == 1


@pytest.fixture
def costly(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the step cost 3 units of the quota."""
    from dataclasses import replace

    monkeypatch.setattr(
        shop, "task_specs", {"step": replace(shop.task_specs["step"], cost={"quota": 3})}
    )


def test_a_task_without_a_cost_uses_no_budget(
    worker: Any, message: Any, rate_limit: RateLimit
) -> None:
    worker.budgets.take = None
    rate_limit.before_process_message(None, message())  # type: ignore[arg-type]


def test_a_spent_budget_snoozes_the_task_and_blocks_the_limit(
    worker: Any, message: Any, costly: None, rate_limit: RateLimit
) -> None:
    asked: list[Any] = []
    worker.budgets.take = lambda wanted: asked.append(wanted) or Exhausted(0, 5.0, 4.0)
    with pytest.raises(SkipMessage):
        rate_limit.before_process_message(None, message())  # type: ignore[arg-type]
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
        4.0,
    )
    assert 5.0 < outcome.delay <= 5.11


def test_a_limit_with_room_for_lighter_tasks_is_not_blocked(
    worker: Any, message: Any, costly: None, rate_limit: RateLimit
) -> None:
    worker.budgets.take = lambda _: Exhausted(0, 5.0, 0.0)
    with pytest.raises(SkipMessage):
        rate_limit.before_process_message(None, message())  # type: ignore[arg-type]
    assert [(outcome.state, outcome.block) for outcome in worker.handed] == [("ready", None)]


def test_a_task_with_a_cost_waits_while_redis_is_unavailable(
    worker: Any, message: Any, costly: None, rate_limit: RateLimit
) -> None:
    import redis

    def away(wanted: Any) -> None:
        raise redis.ConnectionError

    worker.budgets.take = away
    with pytest.raises(SkipMessage):
        rate_limit.before_process_message(None, message())  # type: ignore[arg-type]
    assert [(outcome.state, outcome.block) for outcome in worker.handed] == [("ready", None)]


@pytest.mark.parametrize(
    "error",
    [
        VaultError("credentials-not-decrypted"),
        ZeroDivisionError(),
        SkipMessage("of the plugin's limits"),
    ],
)
def test_the_task_reports_an_account_that_cannot_be_opened(
    worker: Any, message: Any, costly: None, error: Exception, rate_limit: RateLimit
) -> None:
    """If the middleware skipped the task, the account would never stop."""

    def closed(*_: Any) -> None:
        raise error

    worker.accounts.get = closed
    rate_limit.before_process_message(None, message())  # type: ignore[arg-type]
    assert worker.handed == []


def test_a_second_suspect_waits_for_the_first(
    worker: Any, message: Any, monkeypatch: pytest.MonkeyPatch, dedup: Dedup, leases: Leases
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(module, "start_suspect", lambda conn, lease: not begun.append(lease[0]))
    for one in (1, 2):
        dedup.before_process_message(None, message(task_id=one, suspect=True))  # type: ignore[arg-type]
    leases.before_process_message(None, message(task_id=1, suspect=True))  # type: ignore[arg-type]
    with pytest.raises(SkipMessage):
        leases.before_process_message(None, message(task_id=2, suspect=True))  # type: ignore[arg-type]
    assert begun == [1]
    assert [(outcome.state, outcome.suspect, outcome.attempt) for outcome in worker.handed] == [
        ("ready", True, 0)
    ]


def test_collections_do_not_visit_what_was_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker process boots: its modules stay, and a full collection took 80 ms to visit them."""
    process = SimpleNamespace(open=lambda **_: None, work_queue=WorkQueue())
    lifecycle = Lifecycle(process, lambda: 0, lambda _: None)  # type: ignore[arg-type]
    one = SimpleNamespace(consumer_whitelist={"shop"}, worker_threads=1)
    try:
        lifecycle.before_worker_boot(None, one)  # type: ignore[arg-type]
        assert gc.get_freeze_count() > 10 * len(gc.get_objects())
        assert isinstance(one.work_queue, WorkQueue)
    finally:
        gc.unfreeze()
