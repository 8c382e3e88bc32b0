"""Tests of the shares that accounts get of a free window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.dispatcher.allocation import (
    Held,
    Places,
    Rules,
    allocate,
    beyond_share,
    full_users,
    held_by_user,
)
from core.dispatcher.loop import MAX_ACCOUNTS_PER_LOOK
from core.integration.limits import Concurrency, Limit
from core.ledger.dispatching import Blocks, InFlight, OpenBreaker, TaskPortion, Waiting
from core.limits.keys import account_key, to_json

COSTS: dict[str, dict[str, int]] = {"list": {"c": 0}, "download": {}, "heavy": {"c": 2}}
TYPES = sorted(COSTS)


def wide(window: int) -> Places:
    """Return a window before so few threads that none is reserved."""
    return Places(window, 1)


def rules(costs: Mapping[str, Mapping[str, int]] = COSTS, blocked: set[str] = frozenset()) -> Rules:
    return Rules("d", costs, {}, Blocks(set(blocked)))


def waits(
    account: str,
    *,
    live: bool = True,
    backfill: bool = False,
    limits: Sequence[Limit] = (),
    **more: object,
) -> Waiting:
    return replace(Waiting(account, account, None, to_json(limits), live, backfill), **more)


@dataclass
class World:
    """Accounts with tasks by lane and type, and a claim that obeys portions as the ledger does."""

    ready: dict[tuple[str, str, str], int]
    limits: dict[str, list[Limit]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    flying: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)

    def _row(self, account: str) -> tuple[str, str, str | None, list[dict[str, object]]]:
        return (
            self.users.get(account, account),
            account,
            self.groups.get(account),
            to_json(self.limits.get(account, [])),
        )

    def in_flight(self) -> list[InFlight]:
        return [
            InFlight(*self._row(a), lane, type, n)
            for (a, lane, type), n in self.flying.items()
            if n
        ]

    def waiting(self) -> list[Waiting]:
        lanes = {(a, lane) for (a, lane, _), n in self.ready.items() if n}
        names = sorted({a for a, _ in lanes})
        return [
            Waiting(*self._row(a), (a, "live") in lanes, (a, "backfill") in lanes) for a in names
        ]

    def claim(self, portions: list[TaskPortion], random: Random) -> int:
        claimed = 0
        for portion in portions:
            cap = portion.cap
            for _ in range(portion.most):
                fitting = [
                    (account, lane, type)
                    for (account, lane, type), n in self.ready.items()
                    if n
                    and (account, lane) == (portion.account, portion.lane)
                    and type not in portion.without_types
                    and (cap > 0 or type not in portion.capped_types)
                ]
                if fitting:
                    key = random.choice(sorted(fitting))
                    cap -= key[2] in portion.capped_types
                    self.ready[key] -= 1
                    self.flying[key] += 1
                    claimed += 1
        return claimed

    def finish(self, random: Random, share: float = 0.5) -> None:
        for key in sorted(self.flying):
            count = sum(random.random() < share for _ in range(self.flying[key]))
            self.flying[key] -= count
            self.done[key[0]] += count

    def used(
        self, limit: Concurrency, among: set[str], costs: Mapping[str, Mapping[str, int]]
    ) -> int:
        return sum(
            n * costs[type].get(limit.name, 1)
            for (a, _, type), n in self.flying.items()
            if a in among
        )


ACCOUNTS = "abcdef"
READY = st.dictionaries(
    st.tuples(
        st.sampled_from(ACCOUNTS), st.sampled_from(["live", "backfill"]), st.sampled_from(TYPES)
    ),
    st.integers(1, 30),
    min_size=1,
    max_size=12,
)


@given(READY, st.integers(1, 64), st.integers(0, 2**32))
def test_no_more_tasks_are_dispatched_than_places_are_free(
    ready: dict, window: int, seed: int
) -> None:
    world, random = World(ready), Random(seed)
    for _ in range(5):
        free = window - sum(world.flying.values())
        portions = allocate(free, wide(window), world.in_flight(), world.waiting(), rules())
        assert sum(portion.most for portion in portions) <= free
        assert all(portion.most > 0 for portion in portions)
        world.claim(portions, random)
        world.finish(random)


@given(READY, st.integers(2, 64), st.integers(0, 2**32))
def test_no_account_has_more_than_half_while_another_competes(
    ready: dict, window: int, seed: int
) -> None:
    world, random = World(ready), Random(seed)
    for _ in range(5):
        waiting = world.waiting()
        flying_before = Counter(key[0] for key in world.flying.elements())
        portions = allocate(
            window - flying_before.total(), wide(window), world.in_flight(), waiting, rules()
        )
        given = Counter({account.account: 0 for account in waiting})
        for portion in portions:
            given[portion.account] += portion.most
        competitors = {account.account for account in waiting} | set(+flying_before)
        if len(competitors) > 1:
            assert all(
                not n or n + flying_before[account] <= max(window // 2, 1)
                for account, n in given.items()
            )
        world.claim(portions, random)
        world.finish(random)


@given(READY, st.integers(2, 64), st.integers(0, 2**32))
def test_backfill_has_at_most_half_while_live_tasks_wait(
    ready: dict, window: int, seed: int
) -> None:
    world, random = World(ready), Random(seed)
    for _ in range(5):
        free = window - sum(world.flying.values())
        both = {account.account for account in world.waiting() if account.live and account.backfill}
        portions = allocate(free, wide(window), world.in_flight(), world.waiting(), rules())
        for account in both:
            flying = sum(
                n for (a, lane, _), n in world.flying.items() if (a, lane) == (account, "backfill")
            )
            most = Counter[str]()
            for portion in portions:
                most[portion.lane] += portion.most if portion.account == account else 0
            assert not most["backfill"] or most["backfill"] + flying <= window // 2
            assert most["backfill"] <= most["live"]
        world.claim(portions, random)
        world.finish(random)


SCOPES = ["account", "group", "integration"]


@pytest.mark.parametrize("scope", SCOPES)
@given(ready=READY, tasks=st.integers(1, 9), window=st.integers(1, 64), seed=st.integers(0, 2**32))
def test_limits_of_concurrent_tasks_hold_in_every_scope(
    scope: str, ready: dict, tasks: int, window: int, seed: int
) -> None:
    limit = Concurrency("c", tasks, scope)  # type: ignore[arg-type]
    groups = {account: "first" if account < "d" else "second" for account in ACCOUNTS}
    world, random = World(ready, {account: [limit] for account in ACCOUNTS}, groups), Random(seed)
    together = {
        "account": [{account} for account in ACCOUNTS],
        "group": [{"a", "b", "c"}, {"d", "e", "f"}],
        "integration": [set(ACCOUNTS)],
    }[scope]
    for _ in range(6):
        free = window - sum(world.flying.values())
        world.claim(
            allocate(free, wide(window), world.in_flight(), world.waiting(), rules()), random
        )
        for accounts in together:
            # A task that weighs more than the limit runs alone; otherwise it would never run.
            taking = [
                t
                for (a, _, t), n in world.flying.items()
                if a in accounts and COSTS[t].get("c", 1)
                for _ in range(n)
            ]
            assert world.used(limit, accounts, COSTS) <= tasks or (
                taking == ["heavy"] and tasks < COSTS["heavy"]["c"]
            )
        world.finish(random)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("tasks", [2, 5, 100])
def test_no_account_starves_behind_a_huge_one(scope: str, tasks: int) -> None:
    """One huge account, one with a backfill, and small ones all finish.

    The small ones finish long before the huge one.
    """
    ready = {
        ("a", "live", "download"): 2_000,
        ("b", "live", "heavy"): 30,
        ("b", "backfill", "download"): 60,
    }
    ready |= {(account, "live", type): 10 for account in "cdef" for type in TYPES}
    world = World(ready, {account: [Concurrency("c", tasks, scope)] for account in ACCOUNTS})
    random, finished = Random(1), {}
    for turn in range(20_000):
        waiting = world.waiting()
        # start at another account each time, as the dispatcher does
        start = turn % max(len(waiting), 1)
        free = 24 - sum(world.flying.values())
        world.claim(
            allocate(free, wide(24), world.in_flight(), waiting[start:] + waiting[:start], rules()),
            random,
        )
        world.finish(random)
        left = {key[0] for key, n in (*world.ready.items(), *world.flying.items()) if n}
        for account in set(ACCOUNTS) - left:
            finished.setdefault(account, turn)
        if not left:
            break
    assert set(finished) == set(ACCOUNTS)
    assert max(finished[account] for account in "cdef") < finished["a"] * 0.7


@given(
    tasks=st.lists(st.integers(1, 400), min_size=2, max_size=40),
    window=st.integers(2, 64),
    most=st.sampled_from([3, 8, MAX_ACCOUNTS_PER_LOOK]),
    seed=st.integers(0, 2**32),
)
def test_an_account_waits_for_one_window_and_one_turn_of_the_others_at_most(
    tasks: list[int], window: int, most: int, seed: int
) -> None:
    """The bound does not depend on the number of tasks of the others.

    It counts from any moment at which an account has no task in the window.
    """
    names = [f"{number:02}" for number in range(len(tasks))]
    world = World(
        {(name, "live", "download"): count for name, count in zip(names, tasks, strict=True)}
    )
    random, after = Random(seed), ""
    waited = dict.fromkeys(names, 0)
    # If the window is larger than a page of accounts, each account of a page gets several places.
    bound = window + len(names) * -(-window // most)
    for _ in range(60):
        free = window - sum(world.flying.values())
        ring = world.waiting()
        ring = [one for one in ring if one.account > after] + [
            one for one in ring if one.account <= after
        ]
        page = ring[: min(free, most)]
        portions = allocate(free, wide(window), world.in_flight(), page, rules())
        before = Counter(key[0] for key in world.flying.elements())
        claimed = world.claim(portions, random)
        after = page[-1].account if page else after
        here = {portion.account for portion in portions} | set(before)
        for one in ring:
            waited[one.account] = 0 if one.account in here else waited[one.account] + claimed
            assert waited[one.account] <= bound, (
                f"{one.account} waited for {waited[one.account]} tasks"
            )
        world.finish(random)


def test_live_tasks_that_a_limit_exempts_do_not_wait_for_the_backfill() -> None:
    limits: list[Limit] = [Concurrency("c", 20)]
    world = World({("a", "live", "list"): 5, ("a", "backfill", "download"): 10_000}, {"a": limits})
    random = Random(1)
    for _ in range(50):
        world.claim(
            allocate(
                24 - sum(world.flying.values()),
                wide(24),
                world.in_flight(),
                world.waiting(),
                rules(),
            ),
            random,
        )
        world.finish(random)
    assert world.ready["a", "live", "list"] == 0


def test_a_task_heavier_than_its_limit_does_not_block_the_others_forever() -> None:
    world = World(
        {("a", "live", "download"): 5, ("a", "live", "heavy"): 1}, {"a": [Concurrency("c", 1)]}
    )
    random = Random(1)
    for _ in range(50):
        world.claim(
            allocate(
                24 - sum(world.flying.values()),
                wide(24),
                world.in_flight(),
                world.waiting(),
                rules(),
            ),
            random,
        )
        world.finish(random)
    assert world.ready["a", "live", "download"] == 0
    assert world.ready["a", "live", "heavy"] == 0


def test_a_limit_on_every_type_makes_portions_without_types() -> None:
    """Selecting by type would read all ready tasks when no task fits.

    The root task, which the engine adds, does not count.
    """
    every: dict[str, dict[str, int]] = {"start": {"c": 0}, "list": {}, "download": {}}
    some: dict[str, dict[str, int]] = {**every, "free": {"c": 0}}
    account = waits("a", limits=[Concurrency("c", 5)])
    assert allocate(24, wide(24), [], [account], rules(every)) == [TaskPortion("a", "live", 5)]
    assert allocate(24, wide(24), [], [account], rules(some)) == [
        TaskPortion("a", "live", 24, ["download", "list"], 5)
    ]
    flying = [InFlight("a", "a", None, account.limits, "live", "list", 5)]
    assert allocate(19, wide(24), flying, [account], rules(every)) == []
    assert allocate(19, wide(24), flying, [account], rules(some)) == [
        TaskPortion("a", "live", 19, without_types=["download", "list"])
    ]


def test_a_single_account_has_the_complete_window() -> None:
    assert allocate(24, wide(24), [], [waits("a")], rules()) == [TaskPortion("a", "live", 24)]
    assert allocate(24, wide(24), [], [waits("a", live=False, backfill=True)], rules()) == [
        TaskPortion("a", "backfill", 24)
    ]


def test_a_blocked_account_is_skipped() -> None:
    portions = allocate(
        24, wide(24), [], [waits("a"), waits("b")], rules(blocked={account_key("a")})
    )
    assert [portion.account for portion in portions] == ["b"]
    assert allocate(0, wide(24), [], [waits("a")], rules()) == []


def test_a_blocked_limit_stops_only_the_types_with_a_cost_on_it() -> None:
    limits: list[Limit] = [Concurrency("c", 50)]
    portions = allocate(
        24, wide(24), [], [waits("a", limits=limits)], rules(blocked={"account/a/c"})
    )
    assert portions == [TaskPortion("a", "live", 24, without_types=["download", "heavy"])]


def test_a_blocked_limit_of_every_type_stops_the_account() -> None:
    limits: list[Limit] = [Concurrency("c", 50)]
    costs: dict[str, dict[str, int]] = {"download": {}, "list": {}}
    blocked = {"account/a/c"}
    assert allocate(24, wide(24), [], [waits("a", limits=limits)], rules(costs, blocked)) == []
    assert allocate(24, wide(24), [], [waits("a", limits=limits)], rules(costs)) == [
        TaskPortion("a", "live", 24)
    ]


def test_a_limit_of_the_operator_replaces_the_plugins() -> None:
    from core.settings import LimitOverride

    limited = Rules("d", {"download": {}}, {"c": LimitOverride(tasks=3)})
    assert allocate(24, wide(24), [], [waits("a", limits=[Concurrency("c", 50)])], limited) == [
        TaskPortion("a", "live", 3)
    ]


def test_a_backfill_with_half_of_the_places_gets_no_more_while_live_tasks_wait() -> None:
    flying = [InFlight("a", "a", None, [], "backfill", "download", 12)]
    assert allocate(12, wide(24), flying, [waits("a", backfill=True)], rules()) == [
        TaskPortion("a", "live", 12)
    ]


def test_an_open_breaker_leaves_room_for_its_probe_alone() -> None:
    one, other = waits("a", backfill=True), waits("b")
    for due, most in ((True, 1), (False, 0)):
        held = Blocks(breakers={"a": [OpenBreaker(None, due)]})
        portions = allocate(20, wide(20), [], [one, other], Rules("d", COSTS, {}, held))
        assert sum(portion.most for portion in portions if portion.account == "a") == most
        assert sum(portion.most for portion in portions if portion.account == "b") >= 5


def test_an_open_breaker_of_a_limit_holds_back_its_types_alone() -> None:
    for due, cap, closed in ((True, 1, []), (False, 0, ["heavy"])):
        held = Blocks(breakers={"a": [OpenBreaker(["heavy"], due)]})
        (portion,) = allocate(20, wide(20), [], [waits("a")], Rules("d", COSTS, {}, held))
        assert (portion.most, portion.cap, portion.without_types) == (20, cap, closed)
        assert portion.capped_types == (["heavy"] if due else [])


# Users first, then their accounts
# --------------------------------------------------------------------------------------------------


def test_a_user_with_many_accounts_has_the_share_of_one() -> None:
    """The places are shared among users, and the share of each user among its accounts."""
    many = [replace(waits(f"a{number}"), user="greedy") for number in range(10)]
    portions = allocate(20, wide(20), [], [*many, waits("b")], rules())
    places = Counter({"greedy": 0, "b": 0})
    for portion in portions:
        places["b" if portion.account == "b" else "greedy"] += portion.most
    assert places == {"greedy": 10, "b": 10}
    assert len(portions) == 11


@given(
    READY,
    st.integers(4, 64),
    st.integers(0, 2**32),
    st.dictionaries(st.sampled_from(ACCOUNTS), st.sampled_from(["u", "v"])),
)
def test_no_user_holds_the_reserved_threads_with_slow_tasks(
    ready: dict, threads: int, seed: int, users: dict[str, str]
) -> None:
    """Even alone. A user whose tasks do not end gets no more places than threads."""
    places, random = Places(3 * threads, threads), Random(seed)
    world = World(ready, users=users)
    kept = max(threads // 10, 1)
    for _ in range(6):
        before = {user: held.tasks for user, held in held_by_user(world.in_flight()).items()}
        free = places.window - sum(before.values())
        portions = allocate(
            free, places, world.in_flight(), world.waiting(), rules(), user_rate=lambda _: 0.0
        )
        given_ = Counter[str]()
        for portion in portions:
            given_[users.get(portion.account, portion.account)] += portion.most
        for user, most in given_.items():
            assert most + before.get(user, 0) <= threads - kept
        world.claim(portions, random)
        world.finish(random, 0.2)


def test_slow_tasks_count_their_threads_and_quick_ones_their_places() -> None:
    places = Places(60, 20)

    def given_beside(flying: int, users: str, rate: float) -> dict[str, int]:
        queued = [InFlight("a", "a", None, [], "live", "list", flying)]
        waiting = [waits(user) for user in users]
        portions = allocate(60 - flying, places, queued, waiting, rules(), user_rate=lambda _: rate)
        return {portion.account: portion.most for portion in portions}

    assert given_beside(30, "a", 400.0) == {"a": 28}
    assert given_beside(9, "a", 0.0) == {"a": 9}
    # Beside another user that waits, the threads are halved.
    assert given_beside(9, "ab", 0.0) == {"b": 9}


@given(READY, st.integers(4, 64), st.integers(0, 2**32))
def test_no_user_has_more_tasks_than_unreserved_threads_of_single_processes(
    ready: dict, threads: int, seed: int
) -> None:
    """A process with one thread does not know which users hold threads in the others."""
    places, random = Places(3 * threads, threads, threads), Random(seed)
    world = World(ready, users={})
    kept = max(threads // 10, 1)
    for _ in range(6):
        flying = world.in_flight()
        free = places.window - sum(flight.count for flight in flying)
        world.claim(allocate(free, places, flying, world.waiting(), rules()), random)
        held = held_by_user(world.in_flight())
        assert all(each.tasks <= threads - kept for each in held.values())
        world.finish(random, 0.2)


def test_a_task_that_hangs_keeps_no_share() -> None:
    hangs = InFlight("a", "a", None, [], "live", "list", 1, hung=1)
    assert allocate(2, Places(2, 1), [hangs], [waits("a")], rules()) == [
        TaskPortion("a", "live", 2)
    ]
    slow = replace(hangs, hung=0)
    assert allocate(2, Places(3, 1), [slow], [waits("a")], rules(), user_rate=lambda _: 0.0) == []


def test_tasks_of_other_domains_count_for_their_user() -> None:
    elsewhere = InFlight("a", "z", None, [], "live", "other", 19)
    portions = allocate(
        60, Places(60, 20), [], [waits("a")], rules(), [elsewhere], user_rate=lambda _: 0.0
    )
    assert portions == []
    for count, full in ((18, ["a"]), (17, [])):
        held = held_by_user([replace(elsewhere, count=count)], lambda _: 0.0)
        assert full_users(Places(60, 20), held, compete=False) == full


def test_a_user_has_the_places_of_its_threads_and_of_what_it_ends_soon() -> None:
    share = Places(60, 20).without_reserve()
    assert [share.most(Held(rate=rate)) for rate in (0.0, 50.0, 400.0)] == [18, 18 + 12, 58]


def test_places_beyond_the_share_of_slow_tasks_are_taken_back() -> None:
    places = Places(60, 20)
    slow, new = Held(tasks=58, aged=30, rate=0.0), Held(tasks=58, aged=8, rate=0.0)
    assert beyond_share(places, {"a": slow}) == {"a": 40}
    assert beyond_share(places, {"a": new}) == {}
    assert beyond_share(places, {"a": replace(slow, rate=400.0)}) == {}
    assert beyond_share(places, {"a": slow, "b": Held(tasks=9, aged=9, rate=0.0)}) == {"a": 49}
    assert beyond_share(places, {"a": Held(tasks=18, aged=18, rate=0.0)}) == {}
