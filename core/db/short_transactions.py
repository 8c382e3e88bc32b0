"""Work on many rows in portions, each a short transaction.

A transaction on many rows stops all readers of the change feed, and everyone who waits for its
locks. So such work runs in portions, each a transaction of many small statements. A portion ends
after its time or its rows, whichever is first, so it adapts to the machine and to its load. The
statements begin small, and grow as far as their time allows: the cost of a row varies with its
size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from core.db.pool import Conn

MAX_ROWS = 10_000
"""The maximum number of rows of one transaction."""

TARGET_SECONDS = 0.1
"""The time after which a transaction begins no further statement.

The bound is 0.3 s. The rest is for the last statement, the commit, and a busy machine.
"""

STATEMENT_SECONDS = 0.02
"""The time that one statement should take."""

FIRST_ROWS, MIN_ROWS = 100, 10
"""The rows of the first statement of a portion, and of the smallest one."""

DIRECT_ROWS = 2_000
"""The rows that a saving transaction deletes without portions, for all its outcomes together."""

READS_PER_WRITE = 40
"""The rows that cost as much to compare as one row costs to delete."""


class Portion:
    """The bound on one transaction.

    Args:
      clock: The clock, in seconds. Default: the monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked = clock()
        self._end = self._asked + TARGET_SECONDS
        self._left, self._rows, self._handled = MAX_ROWS, 0, 0

    def next_rows(self) -> int:
        """Return the maximum number of rows of the next statement; 0 if the portion ends.

        The first statement of a portion always has some rows, so every portion makes progress.
        """
        now = self._clock()
        if self._rows == 0:
            self._rows = FIRST_ROWS
        elif now >= self._end:
            return 0
        else:
            seconds = max(now - self._asked, 1e-6)
            largest = self._rows * 2 if self._handled >= self._rows else self._rows
            fitting = int(self._handled * STATEMENT_SECONDS / seconds)
            self._rows = max(min(fitting, largest), MIN_ROWS)
        self._asked, self._handled = now, 0
        return min(self._rows, self._left)

    def count(self, rows: int) -> None:
        """Count the rows that the statement has handled."""
        self._handled += rows
        self._left -= rows


class DirectRows:
    """The rows that one saving transaction still handles without portions."""

    def __init__(self) -> None:
        self._left = DIRECT_ROWS * READS_PER_WRITE

    @property
    def to_read(self) -> int:
        """The number of rows that it may compare for one listing. A few are always possible."""
        return max(min(self._left, MAX_ROWS), FIRST_ROWS)

    @property
    def to_delete(self) -> int:
        """The number of rows that it may still delete."""
        return self._left // READS_PER_WRITE

    def count(self, *, read: int = 0, deleted: int = 0) -> None:
        """Count rows that were compared, and rows that were deleted."""
        self._left = max(self._left - read - deleted * READS_PER_WRITE, 0)


def in_portions(conn: Conn, work: Callable[[int], int]) -> Iterator[int]:
    """Repeat a statement in short transactions, until it finds fewer rows than it may handle.

    Yields the number of rows of each transaction, after its commit.

    Args:
      conn: A connection in autocommit mode.
      work: Runs the statement on at most this number of rows; returns the number that it handled.
        Its cost must not depend on the rows that were handled before.
    """
    is_last = False
    while not is_last:
        portion, handled = Portion(), 0
        with conn.transaction():
            while not is_last and (most := portion.next_rows()):
                rows = work(most)
                portion.count(rows)
                handled += rows
                is_last = rows < most
        yield handled


def statement_in_portions(
    conn: Conn, statement: str, params: Mapping[str, Any], *, after: str | bytes = ""
) -> Iterator[int]:
    """Repeat a statement in short transactions, each time after the last row that it handled.

    Yields the number of rows of each transaction, after its commit.

    Args:
      conn: A connection in autocommit mode.
      statement: Handles at most `most` rows after the key `after`, in the order of their keys, and
        returns their number and the key of the last one; None without rows.
      params: The other parameters of the statement.
      after: A key before all rows. Default: the empty text.
    """
    last = after

    def work(most: int) -> int:
        nonlocal last
        ((rows, key),) = conn.execute(statement, {**params, "after": last, "most": most})
        last = last if key is None else key
        return int(rows)

    return in_portions(conn, work)
