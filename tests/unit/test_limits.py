"""Limits: the values of an operator, the key of a budget, and the weight of a task."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SettingsError
from core.integration.limits import Concurrency, Limit, Manifest, Rate
from core.limits.keys import account_key, from_json, limit_key, overridden, to_json, weight
from core.settings import LimitOverride

SCOPES = st.sampled_from(["account", "group", "integration"])
RATES = st.builds(Rate, st.text(min_size=1), st.integers(1, 10**6), st.floats(0.001, 1e6), SCOPES)
LIMITS = RATES | st.builds(Concurrency, st.text(min_size=1), st.integers(1, 10**6), SCOPES)


@given(limits=st.lists(LIMITS))
def test_a_limit_survives_the_round_trip_through_json(limits: list[Limit]) -> None:
    assert from_json(to_json(limits)) == limits


def test_an_override_replaces_only_the_named_values() -> None:
    limits = [
        Rate("quota", 100, 60.0, "group"),
        Concurrency("connections", 4),
        Rate("other", 1, 1.0),
    ]
    figures = {
        "quota": LimitOverride(units=7),
        "connections": LimitOverride(tasks=1),
        "unheard-of": LimitOverride(units=3),
    }
    assert overridden(limits, figures) == [
        Rate("quota", 7, 60.0, "group"),
        Concurrency("connections", 1),
        limits[2],
    ]


@pytest.mark.parametrize(
    ("limit", "figures"),
    [
        (Rate("x", 1, 1.0), LimitOverride(tasks=2)),
        (Concurrency("x", 1), LimitOverride(units=2)),
        (Concurrency("x", 1), LimitOverride(per=2)),
    ],
)
def test_an_override_of_the_wrong_kind_is_refused(limit: Limit, figures: LimitOverride) -> None:
    with pytest.raises(SettingsError, match="POLLING_LIMITS: 'x'"):
        overridden([limit], {"x": figures})


def key(limit: Limit, account: str = "a", group: str | None = "g", domain: str = "d") -> str:
    return limit_key(limit, domain=domain, account_id=account, group=group)


def test_a_limit_is_shared_by_exactly_its_scope() -> None:
    alone, group, everyone = (
        Rate("quota", 1, 1.0, scope) for scope in ("account", "group", "integration")
    )
    assert key(alone, "a") != key(alone, "b")
    assert key(group, "a") == key(group, "b") != key(group, "a", group="h")
    assert key(everyone, "a", "g") == key(everyone, "b", "h") != key(everyone, domain="e")
    assert key(group, domain="d") != key(group, domain="e")
    assert (
        len({key(alone), key(group), key(everyone), key(Rate("other", 1, 1.0)), account_key("a")})
        == 5
    )


def test_an_account_without_a_group_has_a_budget_of_its_own() -> None:
    limit = Rate("quota", 1, 1.0, "group")
    assert key(limit, "a", None) != key(limit, "b", None)


def test_every_task_counts_one_for_concurrency_unless_its_cost_differs() -> None:
    assert weight(Concurrency("c", 4), {}) == 1
    assert weight(Concurrency("c", 4), {"c": 0}) == 0
    assert weight(Concurrency("c", 4), {"c": 2}) == 2
    assert weight(Rate("q", 4, 1.0), {}) == 0
    assert weight(Rate("q", 4, 1.0), {"q": 3}) == 3


@pytest.mark.parametrize(
    "make", [lambda: Rate("x", 0, 1.0), lambda: Rate("x", 1, 0.0), lambda: Concurrency("x", 0)]
)
def test_a_limit_of_zero_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="'x'"):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    "domain", ["", "Gmail", "1st", "a_b", "a b", "a" * 64, "polling", "save-output", "é"]
)
def test_a_domain_that_cannot_be_a_queue_is_refused(domain: str) -> None:
    with pytest.raises(ValueError, match="domain"):
        Manifest(domain, "X")
