"""The queue of a worker process: it wakes one thread at a time, and no item waits for a thread."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from core.ledger.outcomes import Dispatch
from core.worker.reserve import Reserve
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


# Reserved threads
# --------------------------------------------------------------------------------------------------


class Thread:
    """A thread of Dramatiq, as far as the queue looks at it."""

    running = True

    def is_alive(self) -> bool:
        return True


class Threads:
    """Threads that take an item on request, and end it on request."""

    def __init__(self, queue: WorkQueue, count: int) -> None:
        self.queue = queue
        self.free = [Thread() for _ in range(count)]
        self.busy: dict[str, Thread] = {}

    def take(self, monkeypatch: pytest.MonkeyPatch) -> str | None:
        """Let a free thread look for an item. Returns the id of its message."""
        thread = self.free.pop()
        monkeypatch.setattr("core.worker.work_queue.threading.current_thread", lambda: thread)
        try:
            item = self.queue.get(block=False)
        except Empty:
            self.free.append(thread)
            return None
        self.busy[item.message.dispatch.id] = thread
        return item.message.dispatch.id

    def end(self, id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        thread = self.busy.pop(id)
        monkeypatch.setattr("core.worker.work_queue.threading.current_thread", lambda: thread)
        self.queue.task_done()
        self.free.append(thread)


def of(user: str, number: int, queue: str = "d") -> Any:
    dispatch = Dispatch(
        1, number, 1, number, "r", "a", 1, queue, "live", "schedule", "t", {}, 7, user
    )
    return SimpleNamespace(message=SimpleNamespace(dispatch=dispatch, queue_name=queue))


def reserve(threads: int, kept: int) -> Reserve:
    kept_threads = Reserve()
    kept_threads.threads, kept_threads.kept = threads, kept
    return kept_threads


def test_the_last_thread_serves_a_user_that_holds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = WorkQueue(reserve(4, 1))
    threads = Threads(queue, 4)
    for number in range(6):
        queue.put(of("a", number))
    assert [threads.take(monkeypatch) for _ in range(4)] == ["0-1", "1-1", "2-1", None]
    queue.put(of("b", 6))
    queue.put(of("b", 7))
    assert threads.take(monkeypatch) == "6-1", "it passes the older items of the other user"
    assert threads.free == []
    threads.end("0-1", monkeypatch)
    assert threads.take(monkeypatch) is None, "both users hold a thread, and the last one is kept"
    threads.end("6-1", monkeypatch)
    assert threads.take(monkeypatch) == "3-1"
    assert threads.take(monkeypatch) == "7-1"


def test_a_process_without_reserved_threads_holds_nothing_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = WorkQueue(reserve(2, 0))
    threads = Threads(queue, 2)
    for number in range(2):
        queue.put(of("a", number))
    assert [threads.take(monkeypatch) for _ in range(2)] == ["0-1", "1-1"]


def test_messages_of_an_older_leader_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = WorkQueue(reserve(2, 1))
    threads = Threads(queue, 2)
    for number in range(2):
        queue.put(of("", number))
    assert [threads.take(monkeypatch) for _ in range(2)] == ["0-1", "1-1"]


def test_a_thread_that_was_replaced_keeps_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = WorkQueue(reserve(2, 1))
    threads = Threads(queue, 3)
    for number in range(2):
        queue.put(of("a", number))
    assert [threads.take(monkeypatch) for _ in range(2)] == ["0-1", None]
    threads.busy["0-1"].running = False
    assert threads.take(monkeypatch) == "1-1"


def test_items_held_back_are_counted_by_queue_and_can_be_discarded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = WorkQueue(reserve(2, 1))
    threads = Threads(queue, 2)
    for number, name in enumerate(["d", "d", "e", "d"]):
        queue.put(of("a", number, name))
    assert queue.held_back("d") == 0, "a thread may take the first one"
    threads.take(monkeypatch)
    assert (queue.held_back("d"), queue.held_back("e")) == (2, 1)
    queue.discard({"1-1", "2-1"})
    assert (queue.held_back("d"), queue.held_back("e")) == (1, 0)
    threads.end("0-1", monkeypatch)
    assert threads.take(monkeypatch) == "3-1"
    threads.end("3-1", monkeypatch)
    assert queue.unfinished_tasks == 0


def test_an_item_that_waited_for_a_share_starts_when_a_task_of_its_user_ends() -> None:
    """No thread sleeps beside an item that may start."""
    queue = WorkQueue(reserve(4, 1))
    done: SimpleQueue[int] = SimpleQueue()

    def work() -> None:
        while True:
            item = queue.get(timeout=LONG_SECONDS)
            if item == -1:
                return
            time.sleep(0.001)
            done.put(item.message.dispatch.task_id)
            queue.task_done()

    started = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in started:
        thread.start()
    dice = random.Random(3)
    for number in range(400):
        queue.put(of(dice.choice("aaab"), number))
    assert sorted(done.get(timeout=LONG_SECONDS) for _ in range(400)) == [*range(400)]
    for _ in started:
        queue.put(-1)
    for thread in started:
        thread.join(LONG_SECONDS)
        assert not thread.is_alive()
