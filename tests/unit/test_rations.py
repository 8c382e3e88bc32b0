"""Shares of rate limits: users first, then their accounts, then lanes, and priority within both."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.budget_model import Budget, worst_window

from core.dispatcher.allocation import Places, Rules, allocate
from core.dispatcher.rate_headroom import with_use
from core.dispatcher.rate_use import PACE, PACE_SHARE, LimitUse, RateUse
from core.dispatcher.rations import Rationing
from core.integration.limits import Rate
from core.ledger.dispatching import Candidate, TaskPortion, Waiting
from core.limits.budgets import UnitsLeft
from core.limits.keys import to_json
from core.states import Lane

MIXED = {f"t{cost}": {"q": cost} for cost in (1, 3, 5, 11, 17, 23, 30, 34, 41, 47, 55, 60, 72, 88)}
COSTS: dict[str, dict[str, int]] = {"start": {}, "light": {"q": 1}, "heavy": {"q": 7}, "free": {}}
COSTS |= MIXED
LIVE, BACKFILL = Lane.LIVE, Lane.BACKFILL


@dataclass
class Account:
    """An account with ready tasks: their types, by lane."""

    user: str
    name: str
    live: list[str] = field(default_factory=list)
    backfill: list[str] = field(default_factory=list)
    group: str | None = "g"


class World:
    """A leader that shares one limit, and workers that start each task immediately.

    Time passes in steps. The budget is the model of the script.
    """

    def __init__(self, limit: Rate, accounts: Sequence[Account], slots: int = 6) -> None:
        self.limit, self.accounts, self.slots = limit, list(accounts), slots
        self.budget, self.use, self.ids = Budget(limit), RateUse(), count(1)
        self.ready = {
            (account.name, lane): deque((next(self.ids), type) for type in types)
            for account in accounts
            for lane, types in ((LIVE, account.live), (BACKFILL, account.backfill))
        }
        self.users = {account.name: account.user for account in accounts}
        self.done = Counter[tuple[str, str]]()
        self.order: list[tuple[int, str, str, int]] = []

    @property
    def now(self) -> float:
        return self.budget.now / 1_000_000

    def waiting(self) -> list[Waiting]:
        """Return the accounts that have ready tasks, in a ring."""
        self.accounts = [*self.accounts[1:], self.accounts[0]]
        return [
            Waiting(a.user, a.name, a.group, to_json([self.limit]), live, backfill)
            for a in self.accounts
            if (live := bool(self.ready[a.name, LIVE]))
            | (backfill := bool(self.ready[a.name, BACKFILL]))
        ]

    def round(self) -> None:
        """Dispatch what may go now, as the loop does."""
        waiting = self.waiting()
        if not waiting:
            return
        rules = Rules("d", COSTS, {})
        keys = {request.key for request in rules.rates(waiting)}
        uses = {key: self.use.of(key, self.limit, self.now) for key in keys}
        rules = replace(rules, available=dict.fromkeys(keys, self.budget.left()))
        rules = with_use(rules, waiting, uses, self.now)
        places = Places(self.slots * 8, self.slots)
        portions = allocate(self.slots * 3, places, [], waiting, rules)
        rationing = Rationing(rules, uses, waiting)
        for portion in rationing.choose(portions, self.candidates(portions)):
            lane = self.ready[portion.account, portion.lane]
            chosen = [task for task in lane if task[0] in portion.ids]
            if not portion.ids_only:
                other = [task for task in lane if task[1] not in portion.without_types]
                chosen += other[: portion.most - len(chosen)]
            for id, type in chosen:
                self.start(portion, id, type)
        for request in rationing.reservations:
            self.budget.reserve(request.units)

    def candidates(self, portions: Sequence[TaskPortion]) -> list[Candidate]:
        return sorted(
            (
                Candidate(id, portion.account, portion.lane, type)
                for portion in portions
                if portion.metered_types
                for id, type in list(self.ready[portion.account, portion.lane])[:64]
                if (types := portion.candidate_types) is None or type in types
            ),
            key=lambda task: task.id,
        )

    def start(self, portion: TaskPortion, id: int, type: str) -> None:
        self.ready[portion.account, portion.lane].remove((id, type))
        if units := COSTS[type].get("q", 0):
            assert self.budget.take(units) == 0, "a worker refused a task that was dispatched"
            use = self.use.of("group/d/g/q", self.limit, self.now)
            user = self.users[portion.account]
            use.note(self.now, user, portion.account, portion.lane, units)
        self.done[portion.account, portion.lane] += 1
        self.order.append((self.budget.now, portion.account, type, id))

    def run(self, periods: float, step: float = 0.01) -> None:
        """Let time pass."""
        end = self.budget.now + round(periods * self.limit.per * 1_000_000)
        while self.budget.now < end and self.waiting():
            before = self.done.total()
            self.round()
            left = self.budget.left()
            if self.done.total() > before or left.units == self.limit.units:
                self.budget.now += round(step * 1_000_000)
            else:
                # The next round in which anything can change.
                wait = min(left.more_in, self.limit.per / PACE_SHARE)
                self.budget.now += round(max(wait, step) * 1_000_000)

    def units(self) -> Counter[str]:
        """Return the units of each user."""
        used = Counter[str]()
        for _, account, type, _ in self.order:
            used[self.users[account]] += COSTS[type].get("q", 0)
        return used


LIMIT = Rate("q", 60, 1.0, by="group")


def test_three_users_have_equal_shares_whatever_one_of_them_has() -> None:
    world = World(
        LIMIT,
        [
            Account("ann", "a", backfill=["light"] * 10_000),
            Account("bob", "b", live=["light"] * 500),
            Account("cid", "c", live=["light"] * 500),
        ],
    )
    world.run(9.0)
    units = world.units()
    assert sum(units.values()) >= 0.95 * 60 * 9
    assert min(units.values()) >= 0.95 * max(units.values()), units


def test_a_user_with_many_accounts_has_one_share() -> None:
    many = [Account("ann", f"a{number}", live=["light"] * 500) for number in range(8)]
    world = World(LIMIT, [*many, Account("bob", "b", live=["light"] * 500)])
    world.run(9.0)
    units = world.units()
    assert units["bob"] == pytest.approx(units["ann"], rel=0.05)
    of_ann = [world.done[f"a{number}", LIVE] for number in range(8)]
    assert max(of_ann) - min(of_ann) <= 6


def test_users_with_few_tasks_leave_their_share_to_others() -> None:
    world = World(
        LIMIT,
        [
            Account("ann", "a", backfill=["light"] * 10_000),
            Account("bob", "b", live=["light"] * 30),
        ],
    )
    world.run(6.0)
    assert world.done["b", LIVE] == 30
    assert world.units().total() >= 0.95 * 60 * 6


def test_heavy_tasks_of_one_user_count_by_their_units() -> None:
    """Shares are equal to within one task in each period."""
    world = World(
        LIMIT,
        [
            Account("ann", "a", live=["heavy"] * 500),
            Account("bob", "b", live=["light"] * 2_000),
        ],
    )
    world.run(12.0)
    units = world.units()
    assert units["ann"] == pytest.approx(units["bob"], abs=12 * 7)
    assert units.total() >= 0.95 * 60 * 12


def test_live_tasks_go_first_and_backfill_has_its_quarter() -> None:
    world = World(LIMIT, [Account("ann", "a", live=["light"] * 2_000, backfill=["light"] * 2_000)])
    world.run(10.0)
    total = world.done.total()
    assert total >= 0.95 * 600
    assert 0.24 <= world.done["a", BACKFILL] / total <= 0.30


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.0), (0.5, 0.47, 0.53)])
def test_a_plugin_or_an_operator_sets_another_share(share: float, low: float, high: float) -> None:
    limit = replace(LIMIT, backfill_share=share)
    world = World(limit, [Account("ann", "a", ["light"] * 2_000, ["light"] * 2_000)])
    world.run(10.0)
    assert low <= world.done["a", BACKFILL] / world.done.total() <= high


def test_backfill_alone_uses_the_complete_limit_and_leaves_room_for_others() -> None:
    """After its first burst, another user would wait until the end of the period."""
    ann, bob = Account("ann", "a", backfill=["light"] * 10_000), Account("bob", "b")
    world = World(LIMIT, [ann, bob])
    world.run(8.0)
    assert world.done["a", BACKFILL] >= 0.95 * 60 * 8
    world.run(0.5)
    world.ready["b", LIVE].append((next(world.ids), "light"))
    began = world.budget.now
    world.run(0.5)
    at = next(at for at, account, _, _ in world.order if account == "b")
    assert at - began <= 250_000


def test_within_a_lane_the_order_is_that_of_the_ledger() -> None:
    world = World(LIMIT, [Account("ann", "a", live=["light"] * 200)])
    world.run(4.0)
    ids = [id for _, _, _, id in world.order]
    assert ids == sorted(ids)


def test_tasks_without_a_cost_pass_those_that_wait() -> None:
    world = World(LIMIT, [Account("ann", "a", live=["light"] * 200 + ["free"] * 10)])
    world.run(1.0)
    assert sum(type == "free" for _, _, type, _ in world.order) == 10


def test_a_heavy_task_beside_a_stream_of_light_ones_starts_within_two_periods() -> None:
    world = World(
        LIMIT,
        [Account("ann", "a", live=["light"] * 3_000), Account("ann", "b", live=["heavy"] * 3)],
    )
    world.run(2.0)
    assert world.done["b", LIVE] == 3


@pytest.mark.parametrize("seed", range(3))
def test_many_mixed_costs_use_95_percent_of_the_complete_limit(seed: int) -> None:
    """While many tasks wait, no schedule could use more."""
    random = Random(seed)
    types = random.choices(sorted(MIXED), k=300)
    limit = replace(LIMIT, units=100, per=60.0)
    world = World(limit, [Account("ann", "a", live=types)], slots=20)
    world.run(1_000, step=0.02)
    assert not world.waiting()
    assert (
        worst_window([(at, COSTS[type]["q"]) for at, _, type, _ in world.order], 60_000_000) == 100
    )
    periods = world.order[220][0] // 60_000_000
    used = sum(COSTS[type]["q"] for at, _, type, _ in world.order if at < periods * 60_000_000)
    assert used >= 0.95 * periods * 100


@settings(max_examples=40)
@given(
    kinds=st.lists(
        st.tuples(
            st.sampled_from(["ann", "bob", "cid"]),
            st.lists(st.sampled_from(["light", "heavy", "free"]), max_size=40),
            st.lists(st.sampled_from(["light", "heavy", "free"]), max_size=40),
        ),
        min_size=1,
        max_size=5,
    ),
    units=st.integers(3, 60),
)
def test_everything_ends_and_no_worker_refuses_a_task(
    kinds: list[tuple[str, list[str], list[str]]], units: int
) -> None:
    accounts = [Account(user, f"a{n}", live, back) for n, (user, live, back) in enumerate(kinds)]
    world = World(replace(LIMIT, units=units), accounts)
    total = sum(COSTS[type].get("q", 0) for one in accounts for type in (*one.live, *one.backfill))
    world.run(4 + 4 * total / units, step=0.05)
    assert not world.waiting(), {key: list(tasks) for key, tasks in world.ready.items() if tasks}


def test_the_use_of_a_limit_is_forgotten_after_its_period() -> None:
    use = LimitUse(LIMIT)
    pace = PACE * 60 / PACE_SHARE
    assert use.pace_left(0.0) == pace
    use.note(0.0, "ann", "a", BACKFILL, 5)
    use.note(0.5, "bob", "b", LIVE, 3)
    assert use.pace_left(0.1) == pace - 5
    assert use.pace_left(0.2) == pace
    use.expire(1.0)
    assert use.users == {"ann": 5, "bob": 3}
    use.expire(1.02)
    assert (use.users, use.accounts, use.lanes) == ({"bob": 3}, {"b": 3}, {("b", LIVE): 3})
    all_uses = RateUse()
    all_uses.of("k", LIMIT, 0.0).note(0.0, "ann", "a", LIVE, 1)
    all_uses.prune(1.0)
    assert all_uses.of("k", LIMIT, 1.0).users == {"ann": 1}
    all_uses.prune(2.0)
    assert all_uses.of("k", LIMIT, 2.0).users == {}


def test_a_reserved_cost_may_take_what_others_may_not() -> None:
    left = {"group/d/g/q": UnitsLeft(10, 7, 0, 0.1)}
    rules = Rules("d", COSTS, {}, available=left)
    waiting = [
        Waiting("ann", "a", "g", to_json([LIMIT]), True, False),
        Waiting("bob", "b", "g", to_json([LIMIT]), True, False),
    ]
    portions = allocate(10, Places(30, 10), [], waiting, rules)
    tasks = [Candidate(1, "a", LIVE, "light"), Candidate(2, "b", LIVE, "heavy")]
    uses: Mapping[str, LimitUse] = {key: LimitUse(LIMIT) for key in left}
    rationing = Rationing(rules, uses, waiting)
    assert [portion.ids for portion in rationing.choose(portions, tasks)] == [[], [2]]
    assert not rationing.reservations


def test_a_task_that_does_not_fit_gets_the_units_that_are_left_first() -> None:
    """A user who has used more leaves the rest of the limit to the one who comes first."""
    left = {"group/d/g/q": UnitsLeft(5, 0, 5, 0.1)}
    rules = Rules("d", COSTS, {}, available=left)
    waiting = [
        Waiting("ann", "a", "g", to_json([LIMIT]), True, False),
        Waiting("bob", "b", "g", to_json([LIMIT]), True, False),
    ]
    portions = allocate(10, Places(30, 10), [], waiting, rules)
    tasks = [Candidate(1, "a", LIVE, "light"), Candidate(2, "b", LIVE, "heavy")]
    uses = {key: LimitUse(LIMIT) for key in left}
    uses["group/d/g/q"].note(0.0, "ann", "a", LIVE, 10)
    rationing = Rationing(rules, uses, waiting)
    assert [portion.ids for portion in rationing.choose(portions, tasks)] == [[], []]
    assert [(request.key, request.units) for request in rationing.reservations] == [
        ("group/d/g/q", 7)
    ]
