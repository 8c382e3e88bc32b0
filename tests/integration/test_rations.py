"""The leader's side of rate limits: candidates, claims by id, and units on their way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from core.dispatcher.allocation import Rules
from core.dispatcher.rate_headroom import RateHeadroom, retry_in
from core.integration.limits import Rate
from core.ledger import dispatching, leadership
from core.ledger.dispatching import TaskPortion, Waiting
from core.limits.budgets import Budgets, UnitRequest
from core.limits.keys import to_json
from core.states import Lane
from core.transport.queues import Queues

LIMIT = Rate("q", 10, 1_000.0, by="group")
COSTS = {"start": {}, "step": {"q": 1}, "page": {"q": 4}, "free": {}}
REQUEST = UnitRequest("group/shop/g/q", LIMIT, 0, 4)
ADD = """
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key, parent_id, priority)
SELECT r.id, r.user_integration_id, r.integration_domain, r.lane, %(type)s, '{}',
    convert_to(%(type)s || n::text, 'UTF8'), 1, %(priority)s
FROM sync_run r, generate_series(1, %(count)s) n WHERE r.user_integration_id = %(account)s
RETURNING id
"""


@pytest.fixture
def account(desk: Any) -> UUID:
    account: UUID = desk.account()
    desk.run(account)
    desk.conn.execute("UPDATE sync_task SET state = 'done'")
    leadership.lead(desk.conn, desk.me)
    return account


def add(desk: Any, account: UUID, type: str, count: int, priority: int = 0) -> list[int]:
    params = {"account": account, "type": type, "count": count, "priority": priority}
    return [id for (id,) in desk.conn.execute(ADD, params)]


def claim(desk: Any, portion: TaskPortion) -> list[int]:
    found = dispatching.claim(desk.conn, desk.me, "shop", [portion], 60.0)
    return sorted(dispatch.task_id for dispatch in found)


def test_candidates_are_the_first_tasks_of_metered_types(desk: Any, account: UUID) -> None:
    steps, pages = add(desk, account, "step", 3), add(desk, account, "page", 2, priority=1)
    free = add(desk, account, "free", 1)
    name = str(account)
    some = TaskPortion(name, Lane.LIVE, 9, metered_types=["page", "step"])
    found = dispatching.candidates(desk.conn, "shop", [some])
    assert [task.id for task in found] == [*pages, *steps]
    assert {(task.account, task.lane) for task in found} == {(name, Lane.LIVE)}
    every = TaskPortion(name, Lane.LIVE, 9, metered_types=["page", "step"], ids_only=True)
    assert [t.id for t in dispatching.candidates(desk.conn, "shop", [every])] == [
        *pages, *steps, *free,
    ]  # fmt: skip
    assert dispatching.candidates(desk.conn, "shop", [TaskPortion(name, Lane.LIVE, 9)]) == []


def test_the_number_of_candidates_is_bounded(
    desk: Any, account: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "MAX_CANDIDATES", 8)
    monkeypatch.setattr(dispatching, "MIN_CANDIDATES", 3)
    steps = add(desk, account, "step", 20)
    portion = TaskPortion(str(account), Lane.LIVE, 9, metered_types=["step"], ids_only=True)
    other = TaskPortion(str(account), Lane.BACKFILL, 9, metered_types=["step"], ids_only=True)
    found = dispatching.candidates(desk.conn, "shop", [portion])
    assert [task.id for task in found] == steps[:8]
    assert len(dispatching.candidates(desk.conn, "shop", [portion, other, other])) == 3


def test_a_claim_takes_the_chosen_tasks_and_those_without_a_cost(desk: Any, account: UUID) -> None:
    steps, pages = add(desk, account, "step", 3), add(desk, account, "page", 2)
    free = add(desk, account, "free", 1)
    name, metered = str(account), ["page", "step"]
    chosen = TaskPortion(name, Lane.LIVE, 9, without_types=metered, ids=[steps[2], pages[0]])
    assert claim(desk, chosen) == sorted([steps[2], pages[0], *free])
    rest = TaskPortion(name, Lane.LIVE, 9, ids=[steps[0], steps[2]], ids_only=True)
    assert claim(desk, rest) == [steps[0]], "a claimed task is not claimed again"
    assert claim(desk, TaskPortion(name, Lane.LIVE, 9, ids_only=True)) == []


@pytest.fixture
def budgets(queues: Queues) -> Budgets:
    first = iter([True])
    return Budgets(queues.client, queues.key, lambda: next(first, False), queues.run_first)


def waiting(*, live: bool = True) -> list[Waiting]:
    return [Waiting("ann", "a", "g", to_json([LIMIT]), live, not live)]


def note(headroom: RateHeadroom, rules: Rules, types: list[str]) -> None:
    dispatches: Any = [
        SimpleNamespace(account_id="a", type=type, lane=Lane.BACKFILL) for type in types
    ]
    headroom.note(rules, waiting(), dispatches, [REQUEST])


def test_units_on_their_way_are_not_dispatched_again(budgets: Budgets) -> None:
    headroom = RateHeadroom(budgets)
    rules, _ = headroom.apply(Rules("shop", COSTS, {}), waiting(), [REQUEST])
    assert rules.available[REQUEST.key].units == 10
    note(headroom, rules, ["page", "step", "free"])
    assert headroom.left([REQUEST])[REQUEST.key].units == 5
    assert budgets.take([REQUEST._replace(units=4)]) is None
    assert headroom.left([REQUEST])[REQUEST.key].units == 5, "one step is still on its way"
    assert budgets.take([REQUEST._replace(units=1)]) is None
    assert headroom.left([REQUEST])[REQUEST.key].units == 5
    assert headroom.left([]) == {}


def test_the_backfill_has_a_pace_while_no_live_task_waits(budgets: Budgets) -> None:
    headroom = RateHeadroom(budgets)
    rules, _ = headroom.apply(Rules("shop", COSTS, {}), waiting(live=False), [REQUEST])
    assert retry_in(rules, [REQUEST]) == float("inf")
    note(headroom, rules, ["step"])
    rules, uses = headroom.apply(rules, waiting(live=False), [REQUEST])
    assert rules.paces == {REQUEST.key: 10 * 1.25 / 8 - 1}
    assert uses[REQUEST.key].users == {"ann": 1}
    assert retry_in(rules, [REQUEST]) == float("inf")
    note(headroom, rules, ["step"])
    rules, _ = headroom.apply(rules, waiting(live=False), [REQUEST])
    assert retry_in(rules, [REQUEST]) == LIMIT.per / 64
    rules, _ = headroom.apply(rules, [*waiting(live=False), *waiting()], [REQUEST])
    assert (rules.paces, rules.rivals) == ({}, {REQUEST.key: 2})


def test_units_are_reserved_for_a_task_that_does_not_fit(budgets: Budgets) -> None:
    headroom = RateHeadroom(budgets)
    assert budgets.take([REQUEST._replace(units=8)]) is None
    headroom.reserve([REQUEST._replace(units=4)])
    left = headroom.left([REQUEST])[REQUEST.key]
    assert (left.units, left.reserved_cost) == (2, 4)
