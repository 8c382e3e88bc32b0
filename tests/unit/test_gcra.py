"""Rate limits, checked against a model of the budget.

No window of `per` seconds may contain more than `units`.
"""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from support.budget_model import Budget

from core.integration.limits import Rate
from core.limits.budgets import gcra

PER = st.sampled_from([0.5, 1.0, 60.0, 100.0, 3_600.0])
# Waits as a share of the window, and one after which a complete burst is available.
PAUSES = st.lists(
    st.sampled_from([0.0, 0.0, 0.0, 0.003, 0.01, 0.05, 0.3, 1.0]), min_size=1, max_size=300
)


@given(units=st.integers(1, 400), per=PER, pauses=PAUSES, share=st.floats(0, 1))
def test_no_window_contains_more_than_the_limit(
    units: int, per: float, pauses: list[float], share: float
) -> None:
    cost = max(int(units * share), 1)
    budget = Budget(Rate("q", units, per), cost)
    for pause in pauses:
        budget.now += round(pause * per * 1_000_000)
        budget.take(cost)
    assert budget.worst_window() <= units


@given(units=st.integers(2, 400), per=PER, pauses=PAUSES, data=st.data())
def test_different_costs_never_exceed_the_limit(
    units: int, per: float, pauses: list[float], data: st.DataObject
) -> None:
    heaviest = data.draw(st.integers(1, units))
    budget = Budget(Rate("q", units, per), heaviest)
    for pause in pauses:
        budget.now += round(pause * per * 1_000_000)
        budget.take(data.draw(st.integers(1, heaviest)))
    assert budget.worst_window() <= units


def test_a_cost_of_the_complete_limit_after_a_light_task_stays_within_it() -> None:
    budget = Budget(Rate("q", 40, 0.5), heaviest=40)
    budget.take(1)
    budget.take(40)
    assert budget.worst_window() <= 40


def test_a_heavy_task_after_many_light_ones_stays_within_the_limit() -> None:
    budget = Budget(Rate("q", 100, 100.0), heaviest=50)
    while budget.now < 99_000_000:
        budget.now += budget.take(1)
    assert budget.take(50) == 0
    assert budget.worst_window() <= 100


@given(units=st.integers(1, 400), per=PER, share=st.floats(0, 1))
def test_the_returned_wait_suffices_and_most_of_the_limit_is_usable(
    units: int, per: float, share: float
) -> None:
    cost = max(int(units * share * 0.1), 1)
    budget = Budget(Rate("q", units, per), cost)
    end = round(10 * per * 1_000_000)
    while budget.now < end:
        wait = budget.take(cost)
        if wait:
            budget.now += wait
            assert budget.take(cost) == 0
    assert sum(u for _, u in budget.taken) >= 10 * (units - max(units // 20, 1) - cost)


@given(units=st.integers(1, 100), per=PER, times=st.integers(1, 5))
def test_a_task_that_costs_more_than_the_limit_still_runs(
    units: int, per: float, times: int
) -> None:
    budget = Budget(Rate("q", units, per), units + times)
    assert budget.take(units + times) == 0
    budget.now += budget.take(units + times)
    assert budget.take(units + times) == 0
    assert budget.now >= per * 1_000_000


def test_a_heavy_task_waits_no_longer_than_a_light_one() -> None:
    """If it waited for its complete cost, light tasks would always take the units."""
    budget, random = Budget(Rate("q", 100, 100.0), heaviest=20), Random(1)
    # The next time of each taker: one takes 20 units, and nine take one unit each.
    due = dict.fromkeys(range(10), 0)
    taken = dict.fromkeys(due, 0)
    while budget.now < 1_000_000_000:
        name = min(due, key=lambda one: due[one])
        budget.now = due[name]
        wait = budget.take(1 if name else 20)
        taken[name] += not wait
        due[name] = budget.now + round(wait * (1 + random.random() / 10)) + 1
    assert taken[0] >= 10
    assert min(taken.values()) >= 10
    assert budget.worst_window() <= 100


@given(
    units=st.integers(10, 200),
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=6),
    seed=st.integers(0, 2**32),
)
def test_no_taker_starves_at_any_cost_of_the_others(
    units: int, shares: list[float], seed: int
) -> None:
    """Each taker returns after the wait that it was given, a little late like a snoozed task.

    There are many more light tasks than heavy ones.
    """
    costs = [max(int(units * share / 2), 1) for share in shares]
    budget, random = Budget(Rate("q", units, 100.0), max(costs)), Random(seed)
    takers = [costs[0], *(cost for cost in costs[1:] for _ in range(3))]
    due, served = dict.fromkeys(range(len(takers)), 0), dict.fromkeys(range(len(takers)), 0)
    # The time in which each taker could be served a dozen times, one after the other.
    end = 24 * gcra(budget.limit, budget.heaviest)[0] * sum(takers)
    while budget.now < end:
        one = min(due, key=lambda taker: due[taker])
        budget.now = max(due[one], budget.now)
        wait = budget.take(takers[one])
        served[one] += not wait
        due[one] = budget.now + round(wait * (1 + random.random() / 10)) + random.randint(1, 10_000)
    assert min(served.values()) > 0, f"served {served}, with costs {takers}"
    assert budget.worst_window() <= units
