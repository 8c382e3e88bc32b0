"""Rate limits of the complete fleet, in a real Valkey and by its clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.budget_model import Budget, worst_window
from support.budgets_before import take_before
from support.waiting import until

from core.embedded import Urls
from core.integration.limits import Rate
from core.limits.budgets import Budgets, UnitRequest, grant_seconds
from core.limits.scripts import READ_CLOCK, TAKE_UNITS, UNITS_LEFT
from core.transport.queues import Queues


@pytest.fixture
def budgets(queues: Queues) -> Budgets:
    """Return the budgets of a ledger that has never counted any."""
    first = iter([True])
    return Budgets(queues.client, queues.key, lambda: next(first, False), queues.run_first)


def take(budgets: Budgets, limit: Rate, units: int = 1, key: str = "k"):
    return budgets.take([UnitRequest(key, limit, units)])


def test_the_limit_is_available_immediately_and_then_take_returns_the_wait(
    budgets: Budgets,
) -> None:
    limit = Rate("q", 5, 1_000.0)
    assert [take(budgets, limit) for _ in range(5)] == [None] * 5
    wait = take(budgets, limit)
    assert wait is not None
    assert wait.index == 0
    assert 1_010 < wait.seconds <= 1_020
    assert wait.blocked_seconds == wait.seconds


def test_lighter_tasks_may_start_while_a_heavy_one_waits(budgets: Budgets) -> None:
    limit = Rate("q", 100, 1_000.0)
    assert take(budgets, limit, 60) is None
    heavy = take(budgets, limit, 50)
    assert heavy is not None
    assert heavy.blocked_seconds == 0
    left = budgets.left([UnitRequest("k", limit, 0)])["k"]
    # All 60 units leave the log in one slot. Other units may leave with them.
    assert left[:2] == (40, 50)
    assert take(budgets, limit, 40) is None


def test_units_are_reserved_without_a_task(budgets: Budgets) -> None:
    limit = Rate("q", 100, 1_000.0)
    budgets.reserve(UnitRequest("k", limit, 30))
    left = UnitRequest("k", limit, 0)
    assert budgets.left([left])["k"][:4] == (100, 0, 100, 0.0), "30 units can be taken now"
    assert take(budgets, limit, 80) is None
    budgets.reserve(UnitRequest("k", limit, 30))
    assert budgets.left([left])["k"][:2] == (20, 30)


def test_concurrent_takers_never_exceed_the_limit_in_any_window(
    budgets: Budgets, queues: Queues, together: Callable
) -> None:
    limit, end = Rate("q", 60, 1.0), time.monotonic() + 3.0

    def now() -> float:
        seconds, micros = queues.client.time()
        return float(seconds + micros / 1e6)

    def work() -> list[tuple[float, float]]:
        got = []
        while time.monotonic() < end:
            before = now()
            wait = take(budgets, limit)
            if wait is None:
                got.append((before, now()))
            else:
                time.sleep(min(wait.seconds, 0.02))
        return got

    taken = [span for got in together(*([work] * 6)) for span in got]
    # Redis took the units at some moment of the span. Only spans within the window surely count.
    worst = max(
        sum(begin <= before and after < begin + 1.0 for before, after in taken)
        for begin, _ in taken
    )
    assert worst == 60
    assert len(taken) >= 60 * 2


def test_units_of_several_budgets_are_taken_together_or_not_at_all(budgets: Budgets) -> None:
    wide, narrow = Rate("wide", 1_000, 1_000.0), Rate("narrow", 1, 1_000.0)
    assert budgets.take([UnitRequest("w", wide, 1), UnitRequest("n", narrow, 1)]) is None
    assert budgets.left([UnitRequest("w", wide, 0)])["w"].units == 999
    for _ in range(3):
        wait = budgets.take([UnitRequest("w", wide, 1), UnitRequest("n", narrow, 1)])
        assert wait is not None
        assert wait.index == 1
    assert budgets.left([UnitRequest("w", wide, 0)])["w"].units == 999


def test_each_key_has_a_budget_of_its_own(budgets: Budgets) -> None:
    limit = Rate("q", 1, 1_000.0)
    assert take(budgets, limit, key="a") is None
    assert take(budgets, limit, key="a") is not None
    assert take(budgets, limit, key="b") is None


def test_a_charge_has_to_be_paid_off_before_more_is_taken(budgets: Budgets) -> None:
    limit = Rate("q", 100, 100.0)
    assert take(budgets, limit) is None
    budgets.charge(UnitRequest("k", limit, 149))
    first = take(budgets, limit)
    budgets.charge(UnitRequest("k", limit, 100))
    second = take(budgets, limit)
    assert first is not None
    assert second is not None
    assert second.seconds == pytest.approx(first.seconds + 102, abs=20)


def test_exactly_the_units_that_are_left_can_be_taken(budgets: Budgets) -> None:
    limit = Rate("q", 10, 1_000.0)
    assert take(budgets, limit) is None
    left = budgets.left([UnitRequest("k", limit, 0)])["k"].units
    assert left == 9
    assert [take(budgets, limit) for _ in range(left)] == [None] * left
    assert budgets.left([UnitRequest("k", limit, 0)])["k"].units == 0
    assert take(budgets, limit) is not None
    assert budgets.left([]) == {}
    assert budgets.take([]) is None


def test_new_budgets_begin_full_and_flushed_ones_begin_spent(
    budgets: Budgets, flush: Callable[[], None]
) -> None:
    limit = Rate("q", 100, 1_000.0)
    assert take(budgets, limit) is None
    flush()
    assert take(budgets, limit) is not None
    assert budgets.left([UnitRequest("k", limit, 0)])["k"].units == 0


def test_flushed_budgets_are_full_after_one_period(
    budgets: Budgets, flush: Callable[[], None]
) -> None:
    """All of the limit may have been used immediately before the flush."""
    limit = Rate("q", 100, 1_000.0)
    take(budgets, limit)
    flush()
    wait = take(budgets, limit)
    assert wait is not None
    assert 1_010 < wait.seconds <= 1_020


def test_unused_budgets_are_not_kept(budgets: Budgets, queues: Queues) -> None:
    take(budgets, Rate("q", 100, 0.01))
    assert 0 < queues.client.pttl(queues.key("budget/k")) < 3_000
    key = queues.key("rates")

    def kept() -> bool:
        budgets.prune()
        return bool(queues.client.hexists(key, "log/k"))

    assert kept(), "the log of a budget in use"
    until(lambda: not kept(), "the log is deleted")


class SimulatedClock:
    """Budgets in a real server, with a clock that the test advances."""

    def __init__(self, budgets: Budgets, queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client, self.key, self.now = queues.client, queues.key("rates"), 0
        for name, script in {"_take_units": TAKE_UNITS, "_units_left": UNITS_LEFT}.items():
            monkeypatch.setattr(budgets, name, self._with_clock(script))

    def _with_clock(self, script: str) -> Callable[..., Any]:
        """Register a script that gets the time as its last argument."""
        assert script.count(READ_CLOCK) == 1
        changed = script.replace(READ_CLOCK, "local now = tonumber(ARGV[#ARGV])\n")
        registered = self.client.register_script(changed)
        return lambda keys, args: registered(keys=keys, args=[*args, self.now])

    def begin(self, now: int) -> None:
        """Begin with new budgets."""
        self.client.delete(self.key)
        self.client.hset(self.key, mapping={"": 0, "@log": "at 0"})
        self.now = now

    def set(self, now: int) -> None:
        """Set the clock."""
        self.now = now


@pytest.fixture
def clock(budgets: Budgets, queues: Queues, monkeypatch: pytest.MonkeyPatch) -> SimulatedClock:
    return SimulatedClock(budgets, queues, monkeypatch)


BEGIN = 1_700_000_000_000_000
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "take", "charge", "reserve", "lose", "flush"]),
        st.integers(1, 60),
        st.sampled_from([0, 0, 1_000, 9_000, 50_000, 300_000, 1_020_000, 9_000_000]),
    ),
    max_size=40,
)


@given(units=st.integers(1, 50), steps=STEPS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_script_counts_as_the_model_does(
    units: int,
    steps: list[tuple[str, int, int]],
    budgets: Budgets,
    clock: SimulatedClock,
) -> None:
    limit = Rate("q", units, 1.0)
    model = Budget(limit, BEGIN)
    clock.begin(BEGIN)
    clock.client.delete(clock.key.replace("rates", "budget/k"))
    for kind, cost, pause in steps:
        model.now += pause
        clock.set(model.now)
        wanted = UnitRequest("k", limit, cost)
        match kind:
            case "charge":
                budgets.charge(wanted)
                model.charge(cost)
            case "reserve":
                budgets.reserve(wanted)
                model.reserve(cost)
            case "lose":
                # The mark is later than all that the log has.
                model.now += 1
                clock.set(model.now)
                clock.client.hset(clock.key, "", model.now)
                model.lose()
                assert budgets.take([wanted]) is not None
                assert model.take(cost) > 0
            case "flush":
                clock.begin(model.now)
                clock.client.hset(clock.key, "", model.now)
                clock.client.delete(clock.key.replace("rates", "budget/k"))
                model.flush()
                assert budgets.take([wanted]) is not None
                assert model.take(cost) > 0
            case _:
                wait, expected = budgets.take([wanted]), model.take(cost)
                assert (wait.seconds if wait else 0) == expected / 1e6
        assert budgets.left([wanted]) == {"k": model.left()}


DRAWS = [20_000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(1_800)])]


@pytest.mark.parametrize("draws", DRAWS)
def test_no_window_is_exceeded_and_95_percent_are_used_at_any_cost(
    draws: int, budgets: Budgets, clock: SimulatedClock
) -> None:
    """For costs from 1 to the complete limit, with the real script. The clock is simulated."""
    units, window, random = 50, 60_000_000, Random(18)
    limit = Rate("q", units, 60.0)
    life = round(grant_seconds(limit) * 1_000_000)
    for cost in range(1, units + 1):
        now, left, taken = BEGIN, draws // units, []
        clock.begin(now)
        clock.client.delete(clock.key.replace("rates", "budget/k"))
        while left > 0:
            # Draws at random moments, or as soon as the script says.
            clock.set(now)
            wait = budgets.take([UnitRequest("k", limit, cost)])
            left -= 1
            if wait is None:
                taken.append((now, cost))
            now += round(wait.seconds * 1e6) if wait else random.randrange(100_000)
        moments = [(at + random.randrange(life), one) for at, one in taken]
        assert worst_window(moments, window) <= units
        periods = (taken[-1][0] - BEGIN) // window
        used = sum(one for at, one in taken if at < BEGIN + periods * window)
        assert used >= 0.95 * periods * (units // cost) * cost, cost


def test_budgets_hold_though_redis_evicts_keys(budgets: Budgets, queues: Queues) -> None:
    """A Redis with `volatile-*` deletes keys that expire as soon as its memory is full."""
    limit = Rate("q", 60, 600.0)
    while take(budgets, limit) is None:
        pass
    client = queues.client
    policy = client.config_get("maxmemory-policy")["maxmemory-policy"]
    try:
        client.config_set("maxmemory-policy", "volatile-random")
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 2**20)
        client.set(queues.key("expires"), 1, px=600_000)
        with suppress(redis.OutOfMemoryError):
            for number in range(1_000):
                client.set(queues.key(f"junk-{number}"), b"x" * 100_000)
        assert not client.exists(queues.key("expires"))
        client.config_set("maxmemory", 0)
        assert take(budgets, limit) is not None
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", policy)


def test_evicted_budgets_count_as_spent(budgets: Budgets, queues: Queues) -> None:
    """`allkeys-*` deletes the hash of all budgets with their mark. Each then counts as spent."""
    limit = Rate("q", 100, 1_000.0)
    assert take(budgets, limit, key="a") is None
    queues.client.delete(queues.key("rates"))
    for key in ("a", "b"):
        assert take(budgets, limit, key=key) is not None


def test_budgets_of_other_data_count_as_spent(budgets: Budgets, queues: Queues) -> None:
    """A promoted replica has another id, and may lack the units of the last second."""
    limit, dear = Rate("q", 100, 1_000.0), Rate("d", 100, 1_000.0)
    assert take(budgets, limit) is None
    budgets.charge(UnitRequest("debt", dear, 500, 500))
    debt = take(budgets, dear, key="debt")
    queues.client.connection_pool.disconnect()
    assert take(budgets, limit) is None, "a new connection alone changes nothing"
    queues.client.hset(queues.key("rates"), "@data", "of-the-old-master")
    queues.client.connection_pool.disconnect()
    spent, still = take(budgets, limit, 100), take(budgets, dear, key="debt")
    assert spent is not None
    assert debt is not None
    assert still is not None
    assert still.seconds > debt.seconds - 60, "a debt stays"
    assert spent.seconds > 1_010, "the rest of the limit counts as spent"
    queues.client.connection_pool.disconnect()
    again = take(budgets, limit, 100)
    assert again is not None
    assert again.seconds < spent.seconds, "the loss is noticed once"


def test_only_a_new_connection_compares_the_data(
    budgets: Budgets, queues: Queues, servers: Urls
) -> None:
    """A comparison takes two round trips: far more than most commands."""
    client, key = queues.client, queues.key("rates")
    take(budgets, Rate("q", 60, 60.0))
    with redis.Redis.from_url(servers.redis_url).monitor() as monitor:
        for _ in range(3):
            client.echo(f"{key} connected")
        client.connection_pool.disconnect()
        client.echo(f"{key} connected again")
        client.echo(f"{key} end")
        seen = []
        while not seen or f"{key} end" not in seen[-1]:
            seen.append(monitor.next_command()["command"])
    assert [command.split()[0] for command in seen if key in command] == [
        *3 * ["ECHO"], "HMGET", "ECHO", "ECHO",
    ]  # fmt: skip


def test_a_refused_comparison_is_repeated_before_the_next_command(
    budgets: Budgets, queues: Queues
) -> None:
    """As by a server that loads its data: it accepts connections before it has the budgets."""
    limit, client, key = Rate("q", 100, 1_000.0), queues.client, queues.key("rates")
    take(budgets, limit)
    client.hset(key, "@data", "other")
    client.rename(key, queues.key("kept"))
    client.set(key, "the wrong type, so that HMGET is refused")
    client.connection_pool.disconnect()
    client.ping()
    client.rename(queues.key("kept"), key)
    assert take(budgets, limit) is not None, "the rest of the limit counts as spent"


def test_full_budgets_are_deleted(budgets: Budgets, queues: Queues) -> None:
    """The hash does not grow with the accounts."""
    for number in range(5):
        assert take(budgets, Rate("q", 1_000_000, 0.1), key=f"short-{number}") is None
    spent = Rate("q", 100, 1_000.0)
    while take(budgets, spent, key="long") is None:
        pass
    until(
        lambda: budgets.prune() is None and queues.client.hlen(queues.key("rates")) == 4, "pruned"
    )
    assert take(budgets, spent, key="long") is not None
    assert take(budgets, Rate("q", 1_000_000, 0.1), key="short-1") is None


MOVES = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(1, 10),
        st.sampled_from([0, 0, 1_000, 9_000, 50_000, 300_000, 1_100_000]),
    ),
    min_size=1,
    max_size=60,
)


@given(units=st.integers(10, 60), upgrade_at=st.integers(0, 20), moves=MOVES)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_versions_exceed_no_window_during_a_rolling_upgrade(
    units: int,
    upgrade_at: int,
    moves: list[tuple[bool, int, int]],
    budgets: Budgets,
    clock: SimulatedClock,
) -> None:
    limit, now, taken = Rate("q", units, 1.0), BEGIN, []
    clock.begin(now)
    clock.client.hdel(clock.key, "@log")
    clock.client.delete(clock.key.replace("rates", "budget/k"))
    for number, (upgraded, cost, pause) in enumerate(moves):
        now += pause
        clock.set(now)
        if upgraded and number >= upgrade_at:
            refused = budgets.take([UnitRequest("k", limit, cost, 10)]) is not None
        else:
            refused = bool(take_before(clock.client, clock.key, "k", limit, cost, 10, now))
        taken += [] if refused else [(now, cost)]
    assert worst_window(taken, 1_000_000) <= units


def test_units_of_the_version_before_count_beside_a_log(
    budgets: Budgets, clock: SimulatedClock
) -> None:
    limit = Rate("q", 10, 1.0)
    clock.begin(BEGIN)
    assert take(budgets, limit, 1) is None
    now = BEGIN + 200_000
    clock.set(now)
    assert not take_before(clock.client, clock.key, "k", limit, 6, 10, now)
    assert take(budgets, limit, 6) is not None


def test_a_budget_without_a_log_counts_as_spent_after_the_upgrade(
    budgets: Budgets, clock: SimulatedClock
) -> None:
    """The version before kept no log, and deletes budgets that are full by its own count."""
    limit = Rate("q", 60, 1.0)
    clock.begin(BEGIN)
    clock.client.hdel(clock.key, "@log")
    wait = take(budgets, limit)
    assert wait is not None
    assert wait.seconds == 1.02
    assert clock.client.hget(clock.key, "@log") == f"at {BEGIN}".encode()
    clock.set(BEGIN + 1_020_000)
    assert take(budgets, limit, key="other") is None


def test_both_versions_make_progress_during_a_rolling_upgrade(
    budgets: Budgets, clock: SimulatedClock
) -> None:
    limit, taken, now = Rate("q", 60, 1.0), [0, 0], BEGIN
    clock.begin(now)
    for number in range(4_000):
        now += 5_000
        clock.set(now)
        if number % 2:
            refused = budgets.take([UnitRequest("k", limit, 1)]) is not None
        else:
            refused = bool(take_before(clock.client, clock.key, "k", limit, 1, 1, now))
        taken[number % 2] += not refused
    assert min(taken) > 60
    assert sum(taken) > 0.8 * 20 * 60


def test_a_clock_that_is_set_back_delays_for_one_period(
    budgets: Budgets, clock: SimulatedClock
) -> None:
    limit = Rate("q", 10, 1.0)
    clock.begin(BEGIN)
    assert take(budgets, limit, 10) is None
    clock.set(BEGIN - 3_600_000_000)
    wait = take(budgets, limit)
    assert wait is not None
    assert wait.seconds == 1.02


def test_a_debt_of_many_periods_is_paid_off_while_nobody_looks(
    budgets: Budgets, clock: SimulatedClock
) -> None:
    limit = Rate("q", 10, 1.0)
    clock.begin(BEGIN)
    budgets.charge(UnitRequest("k", limit, 10_000_000))
    clock.set(BEGIN + 999_990 * 1_020_000)
    wait = take(budgets, limit)
    assert wait is not None
    assert wait.seconds == pytest.approx(10.2)
    clock.set(BEGIN + 1_000_000 * 1_020_000)
    assert take(budgets, limit) is None


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([*["take"] * 12, "killed", "charge", "flush", "failover", "set back"]),
        st.integers(1, 60),
        st.sampled_from([0, 0, 0, 500, 4_000, 30_000, 200_000, 700_000, 1_020_000]),
    ),
    min_size=1,
    max_size=80,
)


@given(units=st.integers(1, 60), events=EVENTS, seed=st.integers(0, 2**32))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_fault_exceeds_a_window_and_the_limit_is_used_again_afterwards(
    units: int,
    events: list[tuple[str, int, int]],
    seed: int,
    budgets: Budgets,
    clock: SimulatedClock,
) -> None:
    """Kills between grant and use, charges, flushes, failovers, and a clock that is set back."""
    limit, random = Rate("q", units, 1.0), Random(seed)
    life = round(grant_seconds(limit) * 1_000_000)
    now, back, left = BEGIN, 0, []

    def set_clock() -> int:
        clock.set(now - back)
        return now - back

    def lose(*, all: bool) -> None:
        if all:
            clock.begin(set_clock())
            clock.client.delete(clock.key.replace("rates", "budget/k"))
        clock.client.hset(clock.key, "", set_clock())

    lose(all=True)
    clock.client.hset(clock.key, "", 0)
    for event, asked, pause in events:
        now += pause
        set_clock()
        cost = min(asked, units)
        match event:
            case "charge":
                budgets.charge(UnitRequest("k", limit, cost))
            case "flush" | "failover":
                lose(all=event == "flush")
            case "set back":
                back += pause
            case _:
                if take(budgets, limit, cost) is None and event == "take":
                    left.append((now + random.randrange(life), cost))
    assert worst_window(left, 1_000_000) <= units
    now += (2 + sum(cost for event, cost, _ in events if event == "charge") // units) * 3_000_000
    begin, cost, used = now, random.randint(1, units), 0
    while now < begin + 20_000_000:
        set_clock()
        wait = take(budgets, limit, cost)
        used += 0 if wait else cost
        now += round(wait.seconds * 1e6) if wait else 1
    assert used >= 0.95 * 20 * (units // cost) * cost
