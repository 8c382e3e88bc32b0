"""The in-flight tasks of a process: each dispatch once, renewed while its thread is alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.ledger.outcomes import Dispatch, Outcome
from core.worker import inflight as module
from core.worker.inflight import InflightTasks
from core.worker.result_messages import unpack

Make = Callable[..., Dispatch]


def test_one_of_many_concurrent_deliveries_is_received_and_started(dispatch: Make) -> None:
    inflight, together = InflightTasks(), threading.Barrier(8)

    def deliver(number: int) -> tuple[int, int]:
        together.wait()
        one = dispatch(task_id=number // 8)
        return inflight.receive(one), inflight.start(one, 60)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(deliver, range(8 * 50)))
    assert [sum(kind) for kind in zip(*results, strict=True)][1] == 50
    assert sum(taken for taken, _ in results) <= 50
    assert len(inflight) == 50


def test_a_finished_dispatch_is_refused_and_a_returned_one_is_not(dispatch: Make) -> None:
    inflight = InflightTasks()
    for number in (1, 2):
        assert inflight.receive(dispatch(task_id=number))
    inflight.release([dispatch(task_id=1)])
    inflight.release([dispatch(task_id=2)], done=False)
    assert not inflight.receive(dispatch(task_id=1))
    assert not inflight.start(dispatch(task_id=1), 60)
    assert inflight.receive(dispatch(task_id=2))
    assert inflight.receive(dispatch(task_id=1, dispatch_no=2))
    assert len(inflight) == 2


def test_the_memory_of_finished_dispatches_is_bounded(
    dispatch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 10)
    inflight = InflightTasks()
    for number in range(100):
        inflight.release([dispatch(task_id=number)])
    assert len(inflight._done) == 10
    assert inflight.receive(dispatch(task_id=0))
    assert not inflight.receive(dispatch(task_id=99))


def test_waiting_running_and_unsaved_tasks_are_renewed(dispatch: Make) -> None:
    inflight = InflightTasks()
    waits, runs, unsaved = (dispatch(task_id=number) for number in (1, 2, 3))
    for one in (waits, runs, unsaved):
        inflight.receive(one)
    inflight.start(runs, 60)
    inflight.start(unsaved, 60)
    inflight.finish(unsaved)
    assert sorted(inflight.active_leases()) == [(1, 1, None), (2, 1, None), (3, 1, None)]
    assert inflight.withdraw() == [waits]
    assert inflight.running == 1


def test_tasks_of_dead_threads_and_over_their_limit_are_not_renewed(dispatch: Make) -> None:
    inflight = InflightTasks()
    thread = threading.Thread(target=lambda: inflight.start(dispatch(task_id=1), 60))
    thread.start()
    thread.join()
    inflight.start(dispatch(task_id=2), -1)
    assert inflight.active_leases() == []


def test_a_withdrawn_task_does_not_start_and_keeps_its_lease(dispatch: Make) -> None:
    inflight = InflightTasks()
    runs, waits = dispatch(task_id=1), dispatch(task_id=2)
    inflight.receive(runs)
    inflight.receive(waits)
    inflight.start(runs, 60)
    assert inflight.withdraw(60) == []
    assert inflight.withdraw() == [waits]
    assert not inflight.start(waits, 60)
    assert sorted(inflight.active_leases()) == [(1, 1, None), (2, 1, None)]
    assert inflight.withdraw(60) == [waits]  # until it is released, the caller may try again
    inflight.release([waits], done=False)
    assert not inflight.start(waits, 60)
    assert inflight.withdraw() == []
    assert inflight.receive(waits)
    assert inflight.start(waits, 60)


def test_tasks_behind_slow_ones_are_withdrawn_sooner(dispatch: Make) -> None:
    inflight = InflightTasks()
    runs, waits, quick = (dispatch(task_id=number) for number in (1, 2, 3))
    inflight.receive(runs)
    inflight.receive(waits)
    assert inflight.withdraw(60, 0.0) == []  # no thread has started a task
    inflight.start(runs, 60)
    assert inflight.withdraw(60, 30) == []
    inflight.receive(quick)
    assert inflight.withdraw(60, 0.0) == [waits, quick]


def test_tasks_of_a_user_without_a_thread_are_withdrawn_sooner(dispatch: Make) -> None:
    inflight = InflightTasks()
    runs, waits = dispatch(task_id=1, user="ann"), dispatch(task_id=2, user="ann")
    other = dispatch(task_id=3, user="bob")
    for one in (runs, waits, other):
        inflight.receive(one)
    assert inflight.withdraw(60, 30, 0.0) == []  # no thread has started a task
    inflight.start(runs, 60)
    assert inflight.withdraw(60, 30, 30) == []
    assert inflight.withdraw(60, 30, 0.0) == [other]


def test_threads_with_long_tasks_are_counted_by_domain(dispatch: Make) -> None:
    inflight = InflightTasks()
    for number, domain in enumerate(("mail", "mail", "files")):
        inflight.receive(dispatch(task_id=number, domain=domain))
        inflight.start(dispatch(task_id=number, domain=domain), 60)
    assert inflight.busy("mail", 60) == (0, 0)
    assert inflight.busy("mail", -1) == (2, 1)
    inflight.finish(dispatch(task_id=0, domain="mail"))
    inflight.release([dispatch(task_id=2, domain="files")])
    assert inflight.busy("mail", -1) == (1, 0)


def test_a_process_runs_one_suspect_at_a_time(dispatch: Make) -> None:
    inflight = InflightTasks()
    first, second = dispatch(task_id=1, suspect=True), dispatch(task_id=2, suspect=True)
    assert inflight.enter_suspect_lane(first)
    assert inflight.enter_suspect_lane(first)
    assert not inflight.enter_suspect_lane(second)
    inflight.finish(second)
    assert not inflight.enter_suspect_lane(second)
    inflight.release([first])
    assert inflight.enter_suspect_lane(second)


def test_a_dispatch_whose_result_cannot_be_read_is_released(dispatch: Make) -> None:
    inflight, one = InflightTasks(), dispatch()
    fields = Outcome(one).to_json() | {"stop": {"reason": "credentials"}}
    inflight.receive(one, started=True)
    with pytest.raises(TypeError):
        unpack(fields, None, inflight, threading.Event())  # type: ignore[arg-type]
    assert inflight.active_leases() == []
    assert inflight.receive(one, started=True)


def test_a_dispatch_with_the_numbers_of_a_lost_one_is_received(dispatch: Make) -> None:
    """The database has lost the first one in a failover. It still runs, or is saved."""
    inflight = InflightTasks()
    lost, current = dispatch(token=1), dispatch(token=2)
    assert inflight.receive(lost)
    assert inflight.receive(current)
    inflight.release([lost])
    assert inflight.active_leases() == [current.lease]
    assert not inflight.receive(current)
