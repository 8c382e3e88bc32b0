"""The queue of a worker process: it wakes one thread at a time, and no item waits for a thread."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

import pytest

from core.worker.work_queue import WorkQueue

LONG_SECONDS = 20.0
"""A thread that missed its wake-up would sleep for so long; no test waits for it."""


@pytest.fixture
def queue() -> WorkQueue:
    return WorkQueue()


@pytest.fixture
def threads(queue: WorkQueue) -> Iterator[Callable[[int, Callable[[int], None]], None]]:
    """Return `start(count, work)`, which starts threads that work on items until the test ends."""
    started: list[threading.Thread] = []

    def run(work: Callable[[int], None]) -> None:
        while (item := queue.get(timeout=LONG_SECONDS)) >= 0:
            work(item)

    def start(count: int, work: Callable[[int], None]) -> None:
        for _ in range(count):
            started.append(threading.Thread(target=run, args=[work], daemon=True))
            started[-1].start()

    yield start
    for _ in started:
        queue.put(-1)
    for thread in started:
        thread.join(LONG_SECONDS)
        assert not thread.is_alive()


def test_items_that_arrive_together_wake_one_thread(
    queue: WorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Woken threads wait for each other, which costs more than a short task."""
    woken: list[int] = []
    monkeypatch.setattr(queue.not_empty, "notify", lambda count=1: woken.append(count))
    for number in range(8):
        queue.put(number)
    assert woken == [1]
    # The thread that takes an item wakes the next one.
    assert (queue.get(), woken) == (0, [1, 1])
    queue.put(8)
    assert woken == [1, 1]


def test_the_last_item_wakes_no_thread(queue: WorkQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[int] = []
    monkeypatch.setattr(queue.not_empty, "notify", lambda count=1: woken.append(count))
    queue.put(1)
    queue.get()
    assert woken == [1]
    queue.put(2)
    assert woken == [1, 1]


def test_items_that_wait_run_in_all_threads(
    queue: WorkQueue, threads: Callable[[int, Callable[[int], None]], None]
) -> None:
    together = threading.Barrier(8, timeout=LONG_SECONDS)
    done: SimpleQueue[int] = SimpleQueue()
    threads(8, lambda item: done.put(item + together.wait() * 0))
    for number in range(8):
        queue.put(number)
    assert sorted(done.get(timeout=LONG_SECONDS) for _ in range(8)) == [*range(8)]


def test_no_item_is_forgotten_while_threads_sleep(
    queue: WorkQueue, threads: Callable[[int, Callable[[int], None]], None]
) -> None:
    done: SimpleQueue[int] = SimpleQueue()
    dice = random.Random(7)
    threads(4, done.put)
    for burst in range(400):
        count = dice.randrange(1, 6)
        for number in range(count):
            queue.put(burst + number)
        if dice.random() < 0.5:  # let the threads fall asleep at various moments
            time.sleep(dice.random() / 2_000)
        for _ in range(count):
            done.get(timeout=LONG_SECONDS / 6)


def test_a_thread_that_gave_up_waiting_costs_no_wake_up(queue: WorkQueue) -> None:
    with pytest.raises(Empty):
        queue.get(timeout=0.001)
    queue.put(1)
    assert queue.get(timeout=LONG_SECONDS) == 1
