"""The threads that a process keeps for users that hold none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.dispatcher import ages
from core.dispatcher.ages import DispatchAges
from core.worker.reserve import Reserve, needs_bound, reserved


@given(st.lists(st.integers(1, 32), min_size=1, max_size=20))
def test_the_processes_of_a_group_keep_its_reserve_together(threads: list[int]) -> None:
    total, kept, before = sum(threads), [], 0
    spare = total - len(threads)
    for own in threads:
        reserve = Reserve()
        reserve.open(own)
        reserve.divide(total, spare, before)
        before += own - 1
        kept.append(reserve.kept)
    assert reserved(total) == (0 if total < 4 else max(total // 10, 1))
    # A process without a thread for all users would not know which users hold threads elsewhere.
    assert all(each < own or not each for each, own in zip(kept, threads, strict=True))
    assert sum(kept) == min(reserved(total), spare)
    assert needs_bound(total, len(threads)) == (sum(kept) < reserved(total))


def test_ages_know_which_dispatches_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(ages.time, "monotonic", lambda: now[0])
    known = DispatchAges()
    for step in range(200_000):
        now[0] = step * 0.05
        known.note(step)
    for seconds in (1.0, 30.0, 600.0, 5_000.0):
        age = (199_999 - known.before(seconds)) * 0.05
        assert seconds <= age <= seconds * 1.2 + 0.2
    assert len(known._times) <= ages.MAX_SAMPLES + 1
    assert known.before(1e9) == -1


def test_the_latest_dispatch_becomes_old_without_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(ages.time, "monotonic", lambda: now[0])
    known = DispatchAges()
    known.note(1)
    now[0] = 0.01
    known.note(2)
    now[0] = 5.0
    assert known.before(0.0) == 2


def test_ages_begin_anew_in_a_restored_database(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(ages.time, "monotonic", lambda: now[0])
    known = DispatchAges()
    known.note(1_000)
    now[0] = 10.0
    known.note(500)
    assert known.before(1.0) == -1
