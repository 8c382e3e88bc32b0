"""Rate limits of the complete fleet, in a real Valkey and by its clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.budget_model import Budget
from support.waiting import until

from core.embedded import Urls
from core.integration.limits import Rate
from core.limits.budgets import Budgets, UnitRequest, gcra
from core.transport.queues import Queues


@pytest.fixture
def budgets(queues: Queues) -> Budgets:
    """Return the budgets of a ledger that has never counted any."""
    first = iter([True])
    return Budgets(queues.client, queues.key, lambda: next(first, False), queues.run_first)


def take(budgets: Budgets, limit: Rate, units: int = 1, key: str = "k"):
    return budgets.take([UnitRequest(key, limit, units)])


def test_the_burst_is_available_immediately_and_then_take_returns_the_wait(
    budgets: Budgets,
) -> None:
    limit = Rate("q", 100, 1_000.0)
    interval, tolerance = gcra(limit, 1)
    assert [take(budgets, limit) for _ in range(tolerance // interval + 1)] == [None] * 5
    wait = take(budgets, limit)
    assert wait is not None
    assert wait.index == 0
    assert 0.9 * interval / 1e6 < wait.seconds <= interval / 1e6


def test_concurrent_takers_never_exceed_the_limit_in_any_window(
    budgets: Budgets, queues: Queues, together: Callable
) -> None:
    limit, end = Rate("q", 60, 0.5), time.monotonic() + 2.0

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
        sum(begin <= before and after < begin + 0.5 for before, after in taken)
        for begin, _ in taken
    )
    assert 60 * 0.6 < worst <= 60
    assert len(taken) > 60 * 4 * 0.6


def test_units_of_several_budgets_are_taken_together_or_not_at_all(budgets: Budgets) -> None:
    wide, narrow = Rate("wide", 1_000, 1_000.0), Rate("narrow", 1, 1_000.0)
    assert budgets.take([UnitRequest("w", wide, 1), UnitRequest("n", narrow, 1)]) is None
    before = budgets.left([UnitRequest("w", wide, 0)])
    for _ in range(3):
        wait = budgets.take([UnitRequest("w", wide, 1), UnitRequest("n", narrow, 1)])
        assert wait is not None
        assert wait.index == 1
    assert budgets.left([UnitRequest("w", wide, 0)]) == before


def test_each_key_has_a_budget_of_its_own(budgets: Budgets) -> None:
    limit = Rate("q", 1, 1_000.0)
    assert take(budgets, limit, key="a") is None
    assert take(budgets, limit, key="a") is not None
    assert take(budgets, limit, key="b") is None


def test_a_charge_has_to_be_paid_off_before_more_is_taken(budgets: Budgets) -> None:
    limit = Rate("q", 100, 100.0)
    budgets.charge(UnitRequest("k", limit, 50))
    first = take(budgets, limit)
    budgets.charge(UnitRequest("k", limit, 50))
    second = take(budgets, limit)
    assert first is not None
    assert second is not None
    assert second.seconds > first.seconds + 40


def test_exactly_the_units_that_are_left_can_be_taken(budgets: Budgets) -> None:
    limit = Rate("q", 200, 1_000.0)
    assert take(budgets, limit) is None
    left = budgets.left([UnitRequest("k", limit, 0)])["k"]
    assert left == 9
    assert [take(budgets, limit) for _ in range(left)] == [None] * left
    assert budgets.left([UnitRequest("k", limit, 0)]) == {"k": 0}
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
    assert budgets.left([UnitRequest("k", limit, 0)]) == {"k": 0}


def test_flushed_budgets_begin_to_fill_immediately(
    budgets: Budgets, flush: Callable[[], None]
) -> None:
    limit = Rate("q", 100, 1_000.0)
    interval, _ = gcra(limit, 1)
    take(budgets, limit)
    flush()
    wait = take(budgets, limit)
    assert wait is not None
    assert wait.seconds <= interval / 1_000_000, (
        "it fills at its steady rate, and is not empty for a complete window"
    )


def test_unused_budgets_are_not_kept(budgets: Budgets, queues: Queues) -> None:
    take(budgets, Rate("q", 100, 1.0))
    assert 0 < queues.client.pttl(queues.key("budget/k")) < 3_000


STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "take", "take", "charge"]), st.integers(1, 30)), max_size=40
)


@given(units=st.integers(1, 400), heaviest=st.integers(1, 30), steps=STEPS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_script_counts_as_the_model_does(
    units: int,
    heaviest: int,
    steps: list[tuple[str, int]],
    budgets: Budgets,
    flush: Callable[[], None],
    queues: Queues,
) -> None:
    """A unit of this window takes a month, so that the duration of the test does not matter."""
    flush()
    queues.client.hset(queues.key("rates"), "", 0)
    limit = Rate("q", units, 400 * 30 * 86_400.0)
    model = Budget(limit, heaviest)
    for kind, asked in steps:
        cost = min(asked, heaviest)
        wanted = UnitRequest("k", limit, cost, heaviest)
        if kind == "charge":
            budgets.charge(wanted)
            model.charge(cost)
        else:
            wait, expected = budgets.take([wanted]), model.take(cost)
            assert (wait is None) == (expected == 0)
            assert wait is None or wait.seconds == pytest.approx(expected / 1_000_000, abs=60)
        assert budgets.left([wanted]) == {"k": model.left()}


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
    spent, still = take(budgets, limit), take(budgets, dear, key="debt")
    assert spent is not None
    assert debt is not None
    assert still is not None
    assert still.seconds > debt.seconds - 60, "a debt stays"
    interval, _ = gcra(limit, 1)
    assert spent.seconds <= interval / 1e6, "it fills at its steady rate"
    queues.client.connection_pool.disconnect()
    again = take(budgets, limit)
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
    assert take(budgets, limit) is not None, "the burst counts as spent"


def test_full_budgets_are_deleted(budgets: Budgets, queues: Queues) -> None:
    """The hash does not grow with the accounts."""
    for number in range(5):
        assert take(budgets, Rate("q", 1_000_000, 0.1), key=f"short-{number}") is None
    spent = Rate("q", 100, 1_000.0)
    while take(budgets, spent, key="long") is None:
        pass
    until(
        lambda: budgets.prune() is None and queues.client.hlen(queues.key("rates")) == 3, "pruned"
    )
    assert take(budgets, spent, key="long") is not None
    assert take(budgets, Rate("q", 1_000_000, 0.1), key="short-1") is None


def test_workers_of_the_version_before_take_from_the_same_budgets(
    budgets: Budgets, queues: Queues
) -> None:
    """They keep each budget in a key of its own, until a rolling upgrade ends."""
    limit = Rate("q", 100, 1_000.0)
    interval, tolerance = gcra(limit, 1)
    assert take(budgets, limit) is None
    arrival = int(queues.client.get(queues.key("budget/k")))
    theirs = arrival + tolerance + interval
    queues.client.set(queues.key("budget/k"), theirs)
    wait = take(budgets, limit)
    assert wait is not None
    assert wait.seconds > 0.9 * interval / 1e6
