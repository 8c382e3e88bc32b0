"""The bound on a transaction: its statements grow or shrink with the time that rows take."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from core.db import short_transactions
from core.db.short_transactions import (
    DIRECT_ROWS,
    FIRST_ROWS,
    MAX_ROWS,
    MIN_ROWS,
    STATEMENT_SECONDS,
    TARGET_SECONDS,
    DirectRows,
    Portion,
    in_portions,
)


class Rows:
    """A table whose rows take some time each, by a clock of its own."""

    def __init__(self, count: int, seconds: float) -> None:
        self.count, self.seconds, self.now = count, seconds, 0.0
        self.statements: list[tuple[int, float]] = []

    def read(self, most: int) -> int:
        rows = min(most, self.count)
        self.count -= rows
        self.now += rows * self.seconds
        self.statements.append((rows, rows * self.seconds))
        return rows

    def portion(self) -> float:
        """Read one portion, and return its seconds."""
        portion, begun = Portion(lambda: self.now), self.now
        while most := portion.next_rows():
            portion.count(self.read(most))
        return self.now - begun


@pytest.mark.parametrize("seconds", [1e-6, 3e-5, 1e-4, 3e-4])
def test_a_portion_takes_its_time_whatever_a_row_takes(seconds: float) -> None:
    rows = Rows(1_000_000, seconds)
    for _ in range(3):
        assert rows.portion() <= TARGET_SECONDS + 2 * STATEMENT_SECONDS
    assert all(number <= MAX_ROWS for number, _ in rows.statements)
    # After the first one, statements are as long as they should be.
    assert max(taken for _, taken in rows.statements) <= max(
        2 * STATEMENT_SECONDS, FIRST_ROWS * seconds
    )


def test_a_portion_of_quick_rows_ends_after_its_rows() -> None:
    rows = Rows(1_000_000, 1e-9)
    rows.portion()
    assert sum(number for number, _ in rows.statements) == MAX_ROWS
    assert len(rows.statements) < 10


def test_rows_that_become_slow_make_smaller_statements() -> None:
    rows = Rows(1_000_000, 1e-5)
    portion = Portion(lambda: rows.now)
    portion.count(rows.read(portion.next_rows()))
    rows.seconds = 4e-4
    assert portion.next_rows() == 2 * FIRST_ROWS
    portion.count(rows.read(FIRST_ROWS * 3 // 2))
    assert portion.next_rows() == pytest.approx(FIRST_ROWS // 2, abs=1)


def test_a_portion_always_makes_progress() -> None:
    times = iter([0.0, 100.0, 200.0])
    portion = Portion(lambda: next(times))
    assert portion.next_rows() == FIRST_ROWS
    portion.count(FIRST_ROWS)
    assert portion.next_rows() == 0


def test_many_small_parts_do_not_make_a_large_statement() -> None:
    """Statements that return less than they may do not show how long a full one takes."""
    now = [0.0]
    portion = Portion(lambda: now[0])
    for _ in range(40):
        assert MIN_ROWS <= portion.next_rows() <= FIRST_ROWS
        portion.count(1)
        now[0] += 0.001


def test_portions_end_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_transactions, "MAX_ROWS", 100)
    rows = Rows(250, 0.0)
    conn = SimpleNamespace(transaction=nullcontext)
    assert list(in_portions(conn, rows.read)) == [100, 100, 50]  # type: ignore[arg-type]


def test_the_outcomes_of_a_transaction_share_its_direct_rows() -> None:
    direct = DirectRows()
    assert (direct.to_read, direct.to_delete) == (MAX_ROWS, DIRECT_ROWS)
    for _ in range(4):
        direct.count(read=MAX_ROWS, deleted=DIRECT_ROWS // 8)
    assert direct.to_delete == DIRECT_ROWS // 2 - 4 * MAX_ROWS // 40
    direct.count(deleted=DIRECT_ROWS)
    assert (direct.to_read, direct.to_delete) == (FIRST_ROWS, 0)
