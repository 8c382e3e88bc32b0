"""Time limits: the exception is raised inside the task, or never."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from core.ledger.outcomes import Dispatch
from core.middleware import time_limit as module
from core.middleware.time_limit import RETURN_SECONDS, TimeLimit, TimeLimitExceeded
from core.worker.inflight import InflightTasks

Make = Callable[..., Dispatch]


@pytest.fixture
def inflight() -> InflightTasks:
    return InflightTasks()


@pytest.fixture
def limit(
    inflight: InflightTasks, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[float], TimeLimit]]:
    """Return a function that makes a middleware with a time limit in seconds.

    Its clock checks every millisecond.
    """

    def make(seconds: float) -> TimeLimit:
        registry: Any = SimpleNamespace(integrations={"shop": shop})
        time_limit = TimeLimit(inflight, registry, seconds, threading.Event())
        time_limit._clock.start()
        return time_limit

    monkeypatch.setattr(module, "CHECK_SECONDS", 0.001)
    ended = threading.Event()

    def watch_until_the_end(
        self: TimeLimit, watch: Callable[[TimeLimit], None] = TimeLimit._watch
    ) -> None:
        try:
            watch(self)
        except SystemExit:
            ended.set()

    monkeypatch.setattr(TimeLimit, "_watch", watch_until_the_end)
    yield make

    def stop(_: float) -> None:
        raise SystemExit

    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=stop, monotonic=time.monotonic))
    assert ended.wait(5)


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_loop_is_ended_with_an_error_that_states_the_limit(limit: Any, dispatch: Make) -> None:
    with pytest.raises(TimeLimitExceeded, match="over its time limit of 0 s"):
        limit(0.02).call(dispatch(), lambda: spin(20))


def test_a_task_within_its_limit_is_not_interrupted(limit: Any, dispatch: Make) -> None:
    ran = []
    limit(60).call(dispatch(), lambda: ran.append(1))
    assert ran == [1]


def test_a_plugin_that_catches_exception_does_not_catch_the_limit(
    limit: Any, dispatch: Make
) -> None:
    def stubborn() -> None:
        while True:
            try:
                spin(20)
            except Exception:  # noqa: BLE001
                continue

    with pytest.raises(TimeLimitExceeded):
        limit(0.02).call(dispatch(), stubborn)


def test_the_exception_of_a_task_is_raised_unchanged(limit: Any, dispatch: Make) -> None:
    with pytest.raises(ZeroDivisionError):
        limit(60).call(dispatch(), lambda: 1 / 0)


def test_the_limit_of_a_task_has_priority_over_the_operators(
    limit: Any, dispatch: Make, shop: Any, monkeypatch: Any
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(
        shop, "task_specs", {"step": replace(shop.task_specs["step"], time_limit=0.02)}
    )
    with pytest.raises(TimeLimitExceeded):
        limit(60).call(dispatch(), lambda: spin(20))


# The exception may hit a callback of a weak reference. There, Python only reports it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_at_the_very_end_the_exception_is_raised_in_the_call_or_never(
    limit: Any, dispatch: Make
) -> None:
    """400 tasks in 4 threads end when their limit does.

    No thread dies, and no exception is raised after a task.
    """
    time_limit, outcomes, stray = limit(0.004), [], []

    def work(lane: int) -> None:
        try:
            for number in range(100):
                try:
                    time_limit.call(
                        dispatch(),
                        lambda number=number: spin(0.0034 + (number + 25 * lane) % 100 * 0.00002),
                    )
                    outcomes.append("in time")
                except TimeLimitExceeded:
                    outcomes.append("over")
                spin(0.002)
        except BaseException as error:
            stray.append(error)
            raise

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stray == []
    assert len(outcomes) == 400
    assert "over" in outcomes  # on a busy machine, perhaps none is in time
    assert time_limit._watched == {}


def test_a_thread_that_does_not_return_is_replaced_once(
    limit: Any, dispatch: Make, inflight: InflightTasks, monkeypatch: Any, until: Any
) -> None:
    monkeypatch.setattr(module, "RETURN_SECONDS", 0.02)
    time_limit, hangs = limit(0.01), threading.Event()
    stopped: list[int] = []

    class Hanging(threading.Thread):
        def run(self) -> None:
            with pytest.raises(TimeLimitExceeded):
                time_limit.call(dispatch(), lambda: hangs.wait(20))

        def stop(self) -> None:
            stopped.append(1)

    added: list[int] = []
    thread = Hanging()
    given_up: list[str] = []
    consumer = SimpleNamespace(consumer=SimpleNamespace(give_up=given_up.append))
    worker = SimpleNamespace(
        workers=[thread],
        consumers={dispatch().domain: consumer},
        _add_worker=lambda: added.append(1),
    )
    inflight.receive(dispatch())
    thread.start()
    time_limit._worker = worker
    until(lambda: given_up and not len(inflight))
    assert worker.workers == []
    hangs.set()
    thread.join()
    assert (stopped, added, given_up) == ([1], [1], [dispatch().id])


def test_the_task_of_a_dead_thread_takes_no_place_and_delays_no_suspect(
    limit: Any, dispatch: Make, inflight: InflightTasks, until: Any
) -> None:
    time_limit, given_up, added = limit(60), [], []
    left, next_one = dispatch(task_id=1, suspect=True), dispatch(task_id=2, suspect=True)
    inflight.receive(left)
    thread = threading.Thread(
        target=lambda: inflight.start(left, 60) and inflight.enter_suspect_lane(left)
    )
    thread.start()
    thread.join()
    consumer = SimpleNamespace(consumer=SimpleNamespace(give_up=given_up.append))
    time_limit._worker = SimpleNamespace(
        workers=[thread], consumers={left.domain: consumer}, _add_worker=lambda: added.append(1)
    )
    until(lambda: given_up)
    assert until(lambda: inflight.enter_suspect_lane(next_one))
    assert (given_up, added, len(inflight)) == ([left.id], [1], 0)


def test_a_task_that_ends_during_its_interruption_waits_for_the_exception(
    limit: Any, dispatch: Make, monkeypatch: Any
) -> None:
    """If it did not wait, the exception would be raised later, anywhere in the thread."""
    deciding, left = threading.Event(), threading.Event()
    raise_in_thread = module._raise_in_thread

    def slowly(ident: int, exception: type[BaseException] | None) -> None:
        if exception is not None:
            deciding.set()
            left.wait(0.2)
        raise_in_thread(ident, exception)

    monkeypatch.setattr(module, "_raise_in_thread", slowly)
    with pytest.raises(TimeLimitExceeded):
        limit(0.01).call(dispatch(), lambda: deciding.wait(20))
    left.set()
    spin(0.05)


def test_a_lease_is_renewed_until_the_thread_returns_or_is_abandoned(
    limit: Any, dispatch: Make
) -> None:
    """If renewal stopped earlier, the task would be redelivered while the plugin still runs it."""
    given_up = 60 + RETURN_SECONDS + 2 * 1.0  # the clock checks each second
    assert limit(60).renewal_seconds(dispatch()) > given_up
