"""Looking on while the runs go: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from core.db.pool import Conn
from core.errors import ServerUnavailable

LOOK_SECONDS = 0.25
LINE_SECONDS = 3.0
STALLED_SECONDS = 180.0
"""Without any change for this long, something is wrong that waiting does not mend."""

RATE_SECONDS = 2.0

TASKS = """
SELECT count(*) FILTER (WHERE state NOT IN ('ready', 'queued')), count(*)
FROM sync_task WHERE run_id = ANY(%s)
"""
KEPT = """
SELECT count(*), coalesce(sum(size), 0)::bigint FROM user_integration_content
WHERE user_integration_id = %s AND kind = 'file' AND deleted_at IS NULL
"""
RUNNING = "SELECT count(*) FROM sync_run WHERE id = ANY(%s) AND state = 'running'"
WAITING_FOR = """
SELECT coalesce(t.reason, a.status_detail, t.type || ' is ' || t.state) FROM sync_task t
JOIN user_integration a ON a.id = t.user_integration_id
WHERE t.run_id = ANY(%s) AND t.state IN ('ready', 'queued') ORDER BY t.id LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """How far the runs are."""

    files: int
    bytes: int
    closed: int
    tasks: int


class Pace:
    """Tasks a second, over the last seconds."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def per_second(self, closed: int) -> float:
        now = time.monotonic()
        self._marks.append((now, closed))
        while len(self._marks) > 2 and self._marks[0][0] < now - RATE_SECONDS:
            self._marks.popleft()
        began, first = self._marks[0]
        return (closed - first) / (now - began) if now > began else 0.0


def watch(
    conn: Conn,
    console: Console,
    account: UUID,
    runs: list[UUID],
    files: int,
    size: int,
    alive: Callable[[], None],
) -> None:
    """Show how the runs go until they have ended.

    Parameters:
      account: Whose files are counted.
      files, size: How many there are, and their bytes.
      alive: Called at each look; raises if the workers have ended.

    Raises:
      ServerUnavailable: Nothing has moved for three minutes.
    """
    show = _bars if console.is_terminal else _lines
    last, moved = Seen(0, 0, 0, 0), time.monotonic()
    with show(console, files, size) as step:
        while True:
            # Asked first: what is counted afterwards is all there is.
            ended = _number(conn, RUNNING, runs) == 0
            seen = _look(conn, account, runs)
            step(seen)
            if ended:
                return
            alive()
            if seen != last:
                last, moved = seen, time.monotonic()
            elif time.monotonic() - moved > STALLED_SECONDS:
                row = conn.execute(WAITING_FOR, (runs,)).fetchone()
                raise ServerUnavailable(
                    f"nothing has moved for {STALLED_SECONDS:.0f} s:"
                    f" {row[0] if row else 'no task is open'}",
                    "The workers' log says more",
                )
            time.sleep(LOOK_SECONDS)


def _number(conn: Conn, statement: str, runs: list[UUID]) -> int:
    row = conn.execute(statement, (runs,)).fetchone()
    assert row is not None
    return int(row[0])


def _look(conn: Conn, account: UUID, runs: list[UUID]) -> Seen:
    kept, tasks = conn.execute(KEPT, (account,)).fetchone(), conn.execute(TASKS, (runs,)).fetchone()
    assert kept is not None
    assert tasks is not None
    return Seen(kept[0], kept[1], tasks[0], tasks[1])


Step = Callable[[Seen], None]


@contextmanager
def _bars(console: Console, files: int, size: int) -> Iterator[Step]:
    columns = (
        TextColumn("{task.description:>6}"),
        BarColumn(None),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bars = [
            progress.add_task(name, total=total, said="")
            for name, total in (("files", files), ("bytes", size))
        ]
        bars.append(progress.add_task("tasks", total=None, said=""))
        pace = Pace()

        def step(seen: Seen) -> None:
            _set(progress, bars[0], seen.files, files, f"{seen.files:,} of {files:,}")
            _set(progress, bars[1], seen.bytes, size, f"{decimal(seen.bytes)} of {decimal(size)}")
            said = f"{seen.closed:,} of {seen.tasks:,}, {pace.per_second(seen.closed):,.0f} tasks/s"
            _set(progress, bars[2], seen.closed, seen.tasks, said)

        yield step


def _set(progress: Progress, bar: TaskID, done: int, total: int, said: str) -> None:
    # A bar without a total moves on its own: nothing of nothing is all of it.
    progress.update(bar, completed=done if total else 1, total=total or 1, said=said)


@contextmanager
def _lines(console: Console, files: int, size: int) -> Iterator[Step]:
    pace, due = Pace(), time.monotonic() + LINE_SECONDS

    def step(seen: Seen) -> None:
        nonlocal due
        rate = pace.per_second(seen.closed)
        if time.monotonic() < due:
            return
        due = time.monotonic() + LINE_SECONDS
        console.print(
            f"{seen.files:,} of {files:,} files, {decimal(seen.bytes)} of {decimal(size)}, "
            f"{seen.closed:,} of {seen.tasks:,} tasks, {rate:,.0f} tasks/s"
        )

    yield step
