"""Rate limits, checked against a model of the budget.

No window of `per` seconds may contain more than `units`, measured where requests leave.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.budget_model import Budget, worst_window

from core.integration.limits import Rate
from core.limits.budgets import grant_seconds

PER = st.sampled_from([1.0, 1.0, 60.0, 3_600.0])
# Waits as a share of the window, and one after which a complete burst is available.
PAUSES = st.lists(
    st.sampled_from([0.0, 0.0, 0.0, 0.003, 0.01, 0.05, 0.3, 1.0]), min_size=1, max_size=300
)


def leaves(budget: Budget, random: Random) -> list[tuple[int, int]]:
    """Return when requests leave: each task starts at any time while its units are good."""
    life = round(grant_seconds(budget.limit) * 1_000_000)
    return [(at + random.randrange(life), units) for at, units in (*budget.lost, *budget.taken)]


def assert_within(budget: Budget, seed: int) -> None:
    """Assert that no window exceeds the limit where requests leave."""
    window = round(budget.limit.per * 1_000_000)
    assert worst_window([*budget.lost, *budget.taken], window) <= budget.limit.units
    assert worst_window(leaves(budget, Random(seed)), window) <= budget.limit.units


class Taker:
    """Tasks of one cost that wait for a budget, one after another.

    Each returns after the wait that it was given, a little late.
    """

    def __init__(self, cost: int, tasks: float = float("inf")) -> None:
        self.cost, self.tasks, self.served = cost, tasks, 0


def serve(budget: Budget, takers: Iterable[Taker], end: float, seed: int, late: int = 1) -> None:
    """Let takers take units until a time, or until each has taken all of its tasks."""
    random = Random(seed)
    due = [(budget.now, number, taker) for number, taker in enumerate(takers)]
    heapq.heapify(due)
    while due and due[0][0] < end:
        at, number, taker = heapq.heappop(due)
        budget.now = max(budget.now, at)
        wait = budget.take(taker.cost)
        taker.served += not wait
        if taker.served < taker.tasks:
            heapq.heappush(due, (budget.now + wait + random.randint(1, late), number, taker))


@given(units=st.integers(1, 400), per=PER, pauses=PAUSES, share=st.floats(0, 1))
def test_no_window_contains_more_than_the_limit(
    units: int, per: float, pauses: list[float], share: float
) -> None:
    cost = max(int(units * share), 1)
    budget = Budget(Rate("q", units, per))
    for pause in pauses:
        budget.now += round(pause * per * 1_000_000)
        budget.take(cost)
    assert_within(budget, len(pauses))


@given(units=st.integers(2, 400), per=PER, pauses=PAUSES, data=st.data())
def test_different_costs_never_exceed_the_limit(
    units: int, per: float, pauses: list[float], data: st.DataObject
) -> None:
    budget = Budget(Rate("q", units, per))
    for pause in pauses:
        budget.now += round(pause * per * 1_000_000)
        budget.take(data.draw(st.integers(1, units)))
    assert_within(budget, len(pauses))


@given(units=st.integers(2, 400), pauses=PAUSES, data=st.data())
def test_charges_and_losses_exceed_no_window(
    units: int, pauses: list[float], data: st.DataObject
) -> None:
    """What is charged was used before it is counted: it counts from then, and is paid off."""
    budget, charged = Budget(Rate("q", units, 1.0)), 0
    for pause in pauses:
        budget.now += round(pause * 1_000_000)
        match data.draw(st.sampled_from(["take", "take", "charge", "lose", "flush"])):
            case "take":
                budget.take(data.draw(st.integers(1, units)))
            case "charge":
                charged += (cost := data.draw(st.integers(1, units)))
                budget.charge(cost)
            case "lose":
                budget.lose()
            case "flush":
                budget.flush()
    assert_within(budget, len(pauses))
    budget.now += budget.span * (2 + charged // units) + budget.slack + budget.hold
    assert budget.left()[:4] == (units, 0, units, 0.0)


@pytest.mark.parametrize("units", [1, 7, 60, 100, 250])
def test_every_cost_uses_95_percent_of_what_the_best_schedule_could(units: int) -> None:
    """The best schedule starts `units // cost` tasks in each period."""
    periods = 40
    for cost in range(1, units + 1):
        budget = Budget(Rate("q", units, 60.0))
        serve(budget, [Taker(cost) for _ in range(3)], periods * 60_000_000, seed=cost)
        used = sum(u for at, u in budget.taken)
        assert used >= 0.95 * periods * (units // cost) * cost, cost
        assert_within(budget, cost)


def bins(costs: list[int], units: int) -> int:
    """Return the least number of periods that a schedule of these tasks needs."""
    kinds = sorted(set(costs), reverse=True)

    def fills(room: int, counts: tuple[int, ...], at: int = 0) -> Iterable[tuple[int, ...]]:
        """Yield the maximal contents of one period."""
        if at == len(kinds):
            if not any(count and kind <= room for kind, count in zip(kinds, counts, strict=True)):
                yield counts
            return
        for used in range(min(counts[at], room // kinds[at]), -1, -1):
            rest = (*counts[:at], counts[at] - used, *counts[at + 1 :])
            yield from fills(room - used * kinds[at], rest, at + 1)

    @cache
    def least(counts: tuple[int, ...]) -> int:
        if not any(counts):
            return 0
        return 1 + min(map(least, fills(units, counts)))

    return least(tuple(costs.count(kind) for kind in kinds))


@pytest.mark.parametrize(
    "mix",
    [
        {60: 10, 40: 10},
        {50: 8, 30: 8, 20: 8},
        {100: 4, 1: 60},
        {51: 6, 49: 6},
        {34: 9, 33: 9, 32: 9},
        {70: 5, 10: 15},
        {90: 5, 5: 10, 3: 10},
    ],
    ids=str,
)
def test_mixed_costs_use_95_percent_of_an_exact_packing(mix: dict[int, int]) -> None:
    """Each period of the exact packing costs at most a twentieth more."""
    units, period = 100, 60_000_000
    costs = [cost for cost, count in mix.items() for _ in range(count)]
    budget = Budget(Rate("q", units, 60.0))
    serve(budget, [Taker(cost, count) for cost, count in mix.items()], float("inf"), seed=1)
    assert sorted(u for _, u in budget.taken) == sorted(costs)
    assert_within(budget, 1)
    best = bins(costs, units)
    assert budget.now <= 1.05 * (best - 1) * period + 1_000_000


@given(
    units=st.integers(10, 200),
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=6),
    seed=st.integers(0, 2**32),
)
def test_no_cost_starves_beside_the_others(units: int, shares: list[float], seed: int) -> None:
    """Each cost has tasks that wait at all times."""
    costs = [max(round(units * share), 1) for share in shares]
    takers = [Taker(costs[0]), *(Taker(cost) for cost in costs[1:] for _ in range(3))]
    budget = Budget(Rate("q", units, 100.0))
    # Each cost has the oldest reservation once in as many periods as there are costs.
    serve(budget, takers, 100_000_000 * (len(takers) + 2) * 2, seed, late=1_000_000)
    served = Counter[int]()
    for taker in takers:
        served[taker.cost] += taker.served
    assert min(served.values()) > 0, served
    assert_within(budget, seed)


def test_a_reservation_delays_nothing_for_which_there_is_room() -> None:
    budget = Budget(Rate("q", 100, 1.0))
    assert budget.take(60) == 0
    budget.now += 500_000
    assert budget.take(50) > 0, "60 units count: 50 wait"
    assert budget.take(40) == 0, "40 leave 50 for the task that waits"
    assert budget.take(1) > 0
    budget.now = budget.log[0][0] + budget.span
    assert budget.take(11) > 0, "they would delay the reserved task"
    assert budget.take(10) == 0
    assert budget.take(50) == 0


def test_a_reservation_ends_if_its_task_does_not_come() -> None:
    budget = Budget(Rate("q", 100, 1.0))
    assert budget.take(60) == 0
    budget.now += 100_000
    wait = budget.take(100)
    assert budget.take(1) == wait
    budget.now += wait
    assert budget.take(1) == budget.slack + budget.hold
    budget.now += budget.slack + budget.hold
    assert budget.take(1) == 0


@given(units=st.integers(1, 100), per=PER, times=st.integers(1, 5))
def test_a_task_that_costs_more_than_the_limit_still_runs_and_is_paid_off(
    units: int, per: float, times: int
) -> None:
    budget = Budget(Rate("q", units, per))
    assert budget.take(units * times + 1) == 0
    assert budget.now == 0
    wait = budget.take(1)
    # The limit restores its units once in a span.
    assert wait == (times + 1 if units == 1 else times) * budget.span
    budget.now += wait
    assert budget.take(1) == 0


@given(units=st.integers(1, 400), per=PER, pauses=PAUSES, share=st.floats(0, 1))
def test_the_returned_wait_suffices(
    units: int, per: float, pauses: list[float], share: float
) -> None:
    cost = max(int(units * share), 1)
    budget = Budget(Rate("q", units, per))
    for pause in pauses:
        budget.now += round(pause * per * 1_000_000)
        if wait := budget.take(cost):
            budget.now += wait - 1
            assert budget.take(cost) == 1
            budget.now += 1
            assert budget.take(cost) == 0


@given(units=st.integers(1, 400), per=PER, pauses=PAUSES)
def test_the_log_has_a_fixed_size(units: int, per: float, pauses: list[float]) -> None:
    budget = Budget(Rate("q", units, per))
    for pause in pauses * 3:
        budget.now += round(pause * per * 10_000)
        budget.take(1)
        assert len(budget.log) <= 68
