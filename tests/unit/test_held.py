"""What a process holds: each dispatch once, renewed while it is in good hands."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.ledger.outcomes import Dispatch, Outcome
from core.worker import held as module
from core.worker.courier import unpack
from core.worker.held import Held

Make = Callable[..., Dispatch]


def test_of_many_deliveries_at_once_one_is_taken_and_one_begins(dispatch: Make) -> None:
    held, together = Held(), threading.Barrier(8)

    def deliver(number: int) -> tuple[int, int]:
        together.wait()
        one = dispatch(task_id=number // 8)
        return held.take(one), held.begin(one, 60)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(deliver, range(8 * 50)))
    assert [sum(kind) for kind in zip(*results, strict=True)][1] == 50
    assert sum(taken for taken, _ in results) <= 50
    assert len(held) == 50


def test_what_is_finished_is_refused_and_what_was_given_back_is_not(dispatch: Make) -> None:
    held = Held()
    for number in (1, 2):
        assert held.take(dispatch(task_id=number))
    held.release([dispatch(task_id=1).id])
    held.release([dispatch(task_id=2).id], finished=False)
    assert not held.take(dispatch(task_id=1))
    assert not held.begin(dispatch(task_id=1), 60)
    assert held.take(dispatch(task_id=2))
    assert held.take(dispatch(task_id=1, dispatch_no=2))
    assert len(held) == 2


def test_its_memory_of_finished_ones_is_bounded(
    dispatch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 10)
    held = Held()
    for number in range(100):
        held.release([dispatch(task_id=number).id])
    assert len(held._finished) == 10
    assert held.take(dispatch(task_id=0))
    assert not held.take(dispatch(task_id=99))


def test_what_waits_runs_or_is_to_be_saved_is_renewed(dispatch: Make) -> None:
    held = Held()
    waits, runs, unsaved = (dispatch(task_id=number) for number in (1, 2, 3))
    for one in (waits, runs, unsaved):
        held.take(one)
    held.begin(runs, 60)
    held.begin(unsaved, 60)
    held.ran(unsaved)
    assert sorted(held.to_renew()) == [(1, 1), (2, 1), (3, 1)]
    assert held.not_begun() == [waits]
    assert held.running == 1


def test_what_a_dead_thread_left_or_ran_past_its_limit_is_not_renewed(dispatch: Make) -> None:
    held = Held()
    thread = threading.Thread(target=lambda: held.begin(dispatch(task_id=1), 60))
    thread.start()
    thread.join()
    held.begin(dispatch(task_id=2), -1)
    assert held.to_renew() == []


def test_one_suspect_at_a_time(dispatch: Make) -> None:
    held = Held()
    first, second = dispatch(task_id=1, suspect=True), dispatch(task_id=2, suspect=True)
    assert held.enter_suspect_lane(first)
    assert held.enter_suspect_lane(first)
    assert not held.enter_suspect_lane(second)
    held.ran(second)
    assert not held.enter_suspect_lane(second)
    held.release([first.id])
    assert held.enter_suspect_lane(second)


def test_a_result_that_cannot_be_read_is_let_go_of(dispatch: Make) -> None:
    held, one = Held(), dispatch()
    fields = Outcome(one).to_json() | {"stop": {"reason": "credentials"}}
    held.take(one, begun=True)
    with pytest.raises(TypeError):
        unpack(fields, None, held)  # type: ignore[arg-type]
    assert held.to_renew() == []
    assert held.take(one, begun=True)
