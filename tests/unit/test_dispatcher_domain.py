"""The times at which the leader scans a domain."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from core.dispatcher import domain as domains
from core.dispatcher.domain import Domain, Phase


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the clock; `now[0] += 1` advances it by a second."""
    clock = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def test_a_domain_is_scanned_until_nothing_is_found(now: list[float]) -> None:
    one = Domain(threads=4)
    assert one.due()
    one.begin_scan()
    assert (one.phase, one.next_scan_in(0.01)) == (Phase.SCANNING, 0.01)
    one.found_nothing()
    now[0] += 10_000
    assert (one.phase, one.due(), one.next_scan_in(0.01)) == (Phase.IDLE, False, float("inf"))
    one.wake()
    assert one.due()


def test_a_domain_held_back_by_limits_is_scanned_when_they_may_allow_it(now: list[float]) -> None:
    one = Domain(threads=4)
    one.begin_scan()
    one.pass_over(3, 0.02, more=False)
    assert (one.phase, one.due(), one.passed) == (Phase.HELD_BACK, False, 0)
    assert one.next_scan_in(0.01) == pytest.approx(0.02)
    now[0] += 0.021
    assert one.due()
    one.begin_scan()
    assert (one.phase, one.retry_at) == (Phase.SCANNING, float("inf"))


def test_a_domain_without_a_retry_time_waits_for_a_wake_up(now: list[float]) -> None:
    one = Domain(threads=4)
    one.begin_scan()
    one.hold_back(float("inf"))
    assert one.phase is Phase.IDLE
    one.wake()
    assert one.due()


def test_a_scan_skips_a_bounded_number_of_accounts_and_then_pauses(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domains, "MAX_PASSED_ACCOUNTS", 10)
    one = Domain(threads=4)
    for passed in (4, 8):
        one.begin_scan()
        one.pass_over(4, 0.02, more=True)
        assert (one.phase, one.passed) == (Phase.SCANNING, passed)
        # the time of the skipped accounts
        assert one.next_scan_in(0.05) == pytest.approx(0.02)
        assert one.next_scan_in(0.01) == 0.01
    one.begin_scan()
    one.pass_over(4, 0.02, more=True)
    assert (one.phase, one.passed) == (Phase.HELD_BACK, 0)


def test_a_domain_rests_after_sending_unless_more_may_be_ready(now: list[float]) -> None:
    one = Domain(threads=4, passed=7)
    one.begin_scan()
    one.sent(5, more=True)
    assert (one.phase, one.passed) == (Phase.SCANNING, 0)
    one.sent(5, more=False)
    assert one.phase is Phase.IDLE


def test_the_window_is_three_tasks_a_thread_or_a_quarter_second_of_throughput(
    now: list[float],
) -> None:
    one = Domain(threads=4)
    assert one.window() == 12
    for _ in range(10):
        one.sent(100, more=True)
    assert one.window() == 250
    now[0] += 1.1
    assert one.window() == 12


def test_rates_count_the_tasks_of_the_last_half_second(now: list[float]) -> None:
    rates = domains.Rates()
    rates.add(Counter(a=3, b=1))
    now[0] += 0.3
    rates.add(Counter(a=2))
    assert [rates.per_second(key) for key in "abc"] == [10.0, 2.0, 0.0]
    now[0] += 0.3
    assert [rates.per_second(key) for key in "abc"] == [4.0, 0.0, 0.0]
    now[0] += 0.3
    assert rates.per_second("a") == 0.0
    assert not rates._totals


def test_a_large_domain_without_available_tasks_is_searched_once_a_second(
    now: list[float],
) -> None:
    one = Domain(threads=4)
    assert [one.may_search(), one.may_search()] == [True, False]
    now[0] += 1.0
    assert one.may_search()
