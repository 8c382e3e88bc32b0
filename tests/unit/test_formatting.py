"""Numbers, sizes, durations and ages in the form that people read."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.service.formatting import UNKNOWN, ago, counted, moment, number, size, span

NOW = datetime(2026, 1, 2, tzinfo=UTC)
KIB = 1_024
UNITS = {
    "": 1,
    "B": 1,
    "KiB": KIB,
    "MiB": KIB**2,
    "GiB": KIB**3,
    "TiB": KIB**4,
    "PiB": KIB**5,
    "s": 1,
    "min": 60,
    "h": 3_600,
    "d": 86_400,
}
PART = re.compile(r"([0-9][0-9,]*(?:\.[0-9])?)(?: ([A-Za-z]+))?")

COUNTS = st.one_of(st.integers(-5, 5_000), st.integers(-5, 2**62))
"""Numbers of bytes; a third of them are near a boundary between two units."""

SECONDS = st.one_of(
    st.floats(-5, 200, allow_nan=False),
    st.floats(-5, 1e9, allow_nan=False),
    st.builds(
        lambda edge, off: edge + off, st.sampled_from((60, 3_600, 86_400)), st.floats(-1.5, 1.5)
    ),
)


def read(text: str) -> list[tuple[float, str]]:
    """Return the numbers of a text with their units."""
    parts = PART.findall(text)
    assert " ".join(f"{value} {unit}".strip() for value, unit in parts) == text, text
    return [(float(value.replace(",", "")), unit) for value, unit in parts]


def value(text: str) -> float:
    return sum(amount * UNITS[unit] for amount, unit in read(text))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3, "0.0 s"),
        (0.04, "0.0 s"),
        (9.5, "9.5 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3_599.7, "1 h"),
        (3_900, "1 h 5 min"),
        (90_000, "1 d 1 h"),
        (86_399.9, "1 d"),
        (None, UNKNOWN),
        (float("inf"), UNKNOWN),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float | None, shown: str) -> None:
    assert span(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (-1, "0 B"),
        (0, "0 B"),
        (1_023, "1,023 B"),
        (KIB, "1.0 KiB"),
        (KIB**2 - 1, "1.0 MiB"),
        (12_345_678, "11.8 MiB"),
        (200 * KIB**2, "200 MiB"),
        (5_000 * KIB**5, "5,000 PiB"),
        (None, UNKNOWN),
    ],
)
def test_a_size_is_shown_in_binary_units(count: int | None, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "just now"),
        (9.9, "just now"),
        (-9.9, "in a moment"),
        (39, "30 s ago"),
        (-45, "in 40 s"),
        (59.99, "50 s ago"),
        (90, "1 min ago"),
        (-7_300, "in 2 h"),
        (200_000, "2 d ago"),
    ],
)
def test_an_age_is_rounded_down_to_one_unit(seconds: float, shown: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == shown


def test_a_missing_time_is_shown_as_never() -> None:
    assert ago(None) == "never"
    assert moment(None) == UNKNOWN


def test_a_moment_is_shown_in_utc() -> None:
    assert (
        moment(datetime.fromisoformat("2026-01-02T01:02:03.9+01:00")) == "2026-01-02 00:02:03 UTC"
    )


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0"), (7, "7"), (0.04, "0.0"), (9.96, "10"), (1_234_567, "1,234,567"), (None, UNKNOWN)],
)
def test_a_number_is_shown_with_separators(count: float | None, shown: str) -> None:
    assert number(count) == shown


@given(COUNTS, COUNTS)
def test_more_bytes_never_read_as_less(first: int, second: int) -> None:
    low, high = sorted((first, second))
    assert value(size(low)) <= value(size(high))
    ((amount, unit),) = read(size(high))
    assert amount < KIB or unit == "PiB"
    assert abs(amount * UNITS[unit] - max(high, 0)) <= 0.06 * max(high, 0)


@given(SECONDS, SECONDS)
def test_a_longer_time_never_reads_as_shorter(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert value(span(low)) <= value(span(high))
    parts = read(span(high))
    limits = {"s": 60, "min": 60, "h": 24, "d": float("inf")}
    assert all(amount < limits[unit] for amount, unit in parts), (
        "a full unit has to become the next one"
    )
    assert len(parts) <= 2
    assert abs(value(span(high)) - max(high, 0)) <= max(0.51, 0.05 * high)


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.booleans())
def test_a_more_distant_time_never_reads_as_nearer(first: float, second: float, past: bool) -> None:
    near, far = (_distance(seconds, past) for seconds in sorted((first, second)))
    assert near <= far


def _distance(seconds: float, past: bool) -> float:
    text = ago(NOW - timedelta(seconds=seconds if past else -seconds), NOW + timedelta(0))
    if text in ("just now", "in a moment"):
        return 0
    away = text.removesuffix(" ago") if past else text.removeprefix("in ")
    ((amount, unit),) = read(away)
    assert 0 < amount < (60 if unit in ("s", "min") else float("inf"))
    return amount * UNITS[unit]


@given(st.one_of(st.floats(), st.integers(-(2**63), 2**63)))
@pytest.mark.parametrize("shown", [number, span])
def test_no_shown_value_is_empty_or_negative(shown: Callable[[float], str], any: float) -> None:
    text = shown(any)
    assert text
    assert "-" not in text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 items"), (1, "1 item"), (2, "2 items"), (1_234, "1,234 items")]
)
def test_a_number_agrees_with_its_noun(count: int, text: str) -> None:
    assert counted(count, "item") == text


def test_an_irregular_plural_is_given() -> None:
    assert [counted(count, "crash", "crashes") for count in (1, 3)] == ["1 crash", "3 crashes"]
