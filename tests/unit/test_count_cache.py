"""The cache for counts of many rows."""

from __future__ import annotations

from core.service.count_cache import MANY_ROWS, MAX_COUNTS, MAX_LIFETIME_SECONDS, CountCache


class Counter:
    """A count that takes some seconds of a clock."""

    def __init__(self, rows: int, seconds: float = 0.5) -> None:
        self.now, self.times, self.rows, self.seconds = 100.0, 0, rows, seconds
        self.cache = CountCache(lambda: self.now)

    def count(self) -> int:
        self.times += 1
        self.now += self.seconds
        return self.rows

    def get(self, key: str = "key") -> int:
        return self.cache.get(key, self.count, lambda counted: counted)


def test_a_count_of_many_rows_is_cached_for_a_multiple_of_its_duration() -> None:
    counter = Counter(MANY_ROWS)
    assert (counter.get(), counter.get()) == (MANY_ROWS, MANY_ROWS)
    counter.now += 49.9
    counter.get()
    assert counter.times == 1
    counter.now += 0.2
    counter.get()
    assert counter.times == 2


def test_a_count_of_few_rows_is_never_cached() -> None:
    counter = Counter(MANY_ROWS - 1)
    counter.get()
    counter.get()
    assert counter.times == 2


def test_a_slow_count_is_cached_for_a_bounded_time() -> None:
    counter = Counter(MANY_ROWS, seconds=10.0)
    counter.get()
    counter.now += MAX_LIFETIME_SECONDS
    counter.get()
    assert counter.times == 2


def test_each_key_has_its_own_count_and_the_oldest_are_dropped() -> None:
    counter = Counter(MANY_ROWS, seconds=0.01)
    for number in range(MAX_COUNTS + 1):
        counter.get(str(number))
        counter.now = 100.0
    counter.get(str(MAX_COUNTS))
    assert counter.times == MAX_COUNTS + 1
    counter.get("0")
    assert counter.times == MAX_COUNTS + 2
