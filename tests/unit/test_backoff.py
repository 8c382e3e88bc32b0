"""The wait of a task: after a failure, and after a refusal by the provider."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.backoff import growing_pause
from core.results.decisions import (
    FIRST_BACKOFF_SECONDS,
    MAX_BACKOFF_SECONDS,
    MAX_DEFAULT_SNOOZE_SECONDS,
    MAX_SNOOZE_SECONDS,
    MIN_SNOOZE_SECONDS,
    backoff,
    snooze,
)


def test_a_pause_grows_by_its_factor_to_the_longest() -> None:
    assert [growing_pause(1.0, 5.0, step) for step in (0, 1, 2, 3, 10**6)] == [1, 2, 4, 5, 5]
    assert growing_pause(1.0, 100.0, 2, factor=1.5) == 2.25


@pytest.mark.parametrize("jitter", [0.0, 0.2, 0.5, 1.0])
def test_the_jitter_is_a_share_of_the_pause(jitter: float) -> None:
    assert growing_pause(1.0, 5.0, 2, jitter=jitter, draw=min) == 4 * (1 - jitter)
    assert growing_pause(1.0, 5.0, 2, jitter=jitter, draw=max) == 4


@given(attempt=st.integers(1, 10_000))
def test_backoff_is_bounded_by_its_doubling_ceiling_and_by_an_hour(attempt: int) -> None:
    ceiling = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(attempt, 60), 3_600.0)
    assert 0 <= backoff(attempt) <= ceiling
    assert MAX_BACKOFF_SECONDS == 3_600.0


def test_backoff_has_full_jitter() -> None:
    assert [backoff(attempt, max) for attempt in (1, 2, 3, 20)] == [4.0, 8.0, 16.0, 3_600.0]
    assert {backoff(attempt, min) for attempt in (1, 2, 3, 20)} == {0}


@given(seconds=st.floats(0, 1e300) | st.integers(0, 10**12))
def test_the_providers_wait_is_limited_to_between_a_second_and_a_day(seconds: float) -> None:
    assert snooze(seconds, 0) == min(max(float(seconds), MIN_SNOOZE_SECONDS), MAX_SNOOZE_SECONDS)


GARBAGE: list[Any] = ["soon", "", b"1", object(), [], {}, math.nan, math.inf, -math.inf, None, 1j]


@pytest.mark.parametrize(
    "retry_after", GARBAGE, ids=lambda value: repr(value).partition(" at 0x")[0]
)
def test_an_invalid_retry_after_is_treated_as_missing(retry_after: Any) -> None:
    assert 5.0 <= snooze(retry_after, 0) <= 10.0


@given(
    retry_after=st.floats() | st.integers() | st.text() | st.none(), snoozes=st.integers(0, 10**9)
)
@example(retry_after=10**400, snoozes=0)
@example(retry_after=-(10**400), snoozes=0)
def test_no_value_makes_a_task_wait_forever_or_not(retry_after: Any, snoozes: int) -> None:
    assert MIN_SNOOZE_SECONDS <= snooze(retry_after, snoozes) <= MAX_SNOOZE_SECONDS


@given(snoozes=st.integers(0, 10**9))
def test_snoozes_without_a_given_wait_grow_to_a_quarter_of_an_hour(snoozes: int) -> None:
    ceiling = min(10.0 * 2.0 ** min(snoozes, 20), MAX_DEFAULT_SNOOZE_SECONDS)
    assert ceiling / 2 <= snooze(None, snoozes) <= ceiling
