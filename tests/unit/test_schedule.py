"""The schedule of polls: how often it fires, and which ticks a scheduler has missed."""

from __future__ import annotations

import pendulum
import pytest

from core.dispatcher.schedule import is_frequent, missed_seconds, tick_seconds


def test_the_seconds_between_ticks_follow_from_the_schedule() -> None:
    assert (tick_seconds("*/2 * * * *"), tick_seconds("0 * * * *")) == (120.0, 3600.0)


@pytest.mark.parametrize(
    ("schedule", "frequent"),
    [
        ("* * * * *", True),
        ("*/2 * * * *", True),
        ("*/5 * * * *", True),
        ("3-58/5 * * * *", True),
        ("*/6 * * * *", False),
        ("0-30/5 * * * *", False),  # the gap from minute 30 to the next hour
        ("*/2 8-17 * * *", False),
        ("* * 1-30 * *", False),
        ("* * * 1-11 *", False),
        ("* * * * 1-5", False),
        ("@hourly", False),
    ],
)
def test_a_schedule_is_frequent_if_no_gap_is_longer_than_five_minutes(
    schedule: str, frequent: bool
) -> None:
    assert is_frequent(schedule) is frequent


def test_a_schedule_of_certain_hours_misses_no_tick_at_night(monkeypatch) -> None:
    night = pendulum.datetime(2026, 3, 4, 23, 30, tz="UTC")
    morning = pendulum.datetime(2026, 3, 5, 8, 30, tz="UTC")
    latest = pendulum.datetime(2026, 3, 4, 17, 58, tz="UTC")
    for now, missed in ((night, False), (morning, True)):
        monkeypatch.setattr(pendulum, "now", lambda now=now: now)
        silent = (now - latest).total_seconds()
        assert (missed_seconds("*/2 8-17 * * *", silent) > 0) is missed


def test_a_regular_scheduler_misses_its_first_tick_an_interval_after_the_latest(
    monkeypatch,
) -> None:
    now = pendulum.datetime(2026, 3, 4, 10, 1, tz="UTC")
    monkeypatch.setattr(pendulum, "now", lambda: now)
    # The latest tick was at 10:00, according to clocks that differ by a second.
    assert missed_seconds("*/2 * * * *", 59.0) == missed_seconds("*/2 * * * *", 61.0) == -60.0
    assert missed_seconds("*/2 * * * *", 180.0) == 60.0
