"""Watch the runs of the demo: progress bars on a terminal, otherwise a line every 3 seconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from core.demo.engine import Account
from core.demo.files import FILE, Tree
from core.errors import ServerUnavailable
from core.service.accounts import queries as account_queries
from core.service.backend import Backend
from core.service.formatting import number, size
from core.service.runs.watch import RunWatcher

POLL_SECONDS = 0.25
LINE_SECONDS = 3.0
STALLED_SECONDS = 180.0
"""The time without progress after which the demo fails."""

RATE_SECONDS = 2.0
"""The period over which throughput is measured."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The progress of the runs: saved files and bytes, and closed and known tasks."""

    files: int
    bytes: int
    closed: int
    tasks: int


class Throughput:
    """The tasks per second, measured over the last 2 seconds."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def per_second(self, closed: int) -> float:
        """Record the number of closed tasks, and return the tasks per second."""
        now = time.monotonic()
        self._marks.append((now, closed))
        while len(self._marks) > 2 and self._marks[0][0] < now - RATE_SECONDS:
            self._marks.popleft()
        began, first = self._marks[0]
        return (closed - first) / (now - began) if now > began else 0.0


def watch(
    backend: Backend,
    console: Console,
    accounts: Sequence[Account],
    tree: Tree,
    alive: Callable[[], None],
) -> None:
    """Show the progress of the accounts' runs until they have ended.

    Args:
      backend: The engine's backend.
      console: The terminal or file to print to.
      accounts: The accounts, first the one whose files are counted.
      tree: The files that are served.
      alive: Called at each step; raises if the workers have exited.

    Raises:
      PollingError: An account has stopped and needs a person.
      ServerUnavailable: The runs made no progress for three minutes.
    """
    watchers = [RunWatcher(backend, account.run) for account in accounts]
    show = _bars if console.is_terminal else _lines
    last, moved = Counts(0, 0, 0, 0), time.monotonic()
    with show(console, tree) as step:
        while True:
            # Read the states before the counts: for ended runs, the counts are then final.
            states = [watcher.refresh() for watcher in watchers]
            counts = _count(backend, accounts[0], watchers)
            step(counts, _reason(watchers))
            if "running" not in states:
                return
            alive()
            _require_movable(watchers)
            if counts != last:
                last, moved = counts, time.monotonic()
            elif time.monotonic() - moved > STALLED_SECONDS:
                raise _stalled(watchers)
            time.sleep(max(POLL_SECONDS, *(watcher.pause for watcher in watchers)))


def _count(backend: Backend, account: Account, watchers: Sequence[RunWatcher]) -> Counts:
    with backend.database.connection() as conn:
        kept = {row["kind"]: row for row in account_queries.account_kinds(conn, account.id)}
    files = kept.get(FILE, {"items": 0, "bytes": 0})
    tasks = sum(watcher.now.known for watcher in watchers)
    waiting = sum(watcher.now.ready + watcher.now.queued for watcher in watchers)
    return Counts(files["items"], files["bytes"], tasks - waiting, tasks)


def _require_movable(watchers: Sequence[RunWatcher]) -> None:
    for watcher in watchers:
        if watcher.stopped is not None:
            raise watcher.stopped


def _stalled(watchers: Sequence[RunWatcher]) -> ServerUnavailable:
    return ServerUnavailable(
        "demo-stalled", seconds=STALLED_SECONDS, reason=_reason(watchers) or "no task ends"
    )


def _reason(watchers: Sequence[RunWatcher]) -> str:
    """Return the first reason for which the runs wait; empty if they do not wait."""
    waits = (watcher.wait for watcher in watchers)
    return next((wait.blocker.reason for wait in waits if wait is not None and wait.is_blocked), "")


Step = Callable[[Counts, str], None]


@contextmanager
def _bars(console: Console, tree: Tree) -> Iterator[Step]:
    columns = (
        TextColumn("{task.description:>6}", markup=False),
        BarColumn(None),
        TextColumn("{task.fields[text]}", markup=False),
    )
    files, total = len(tree.files), tree.bytes
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bars = [
            progress.add_task(name, total=all_of_it, text="")
            for name, all_of_it in (("files", files), ("bytes", total), ("tasks", None))
        ]
        throughput = Throughput()

        def step(counts: Counts, why: str) -> None:
            text = f"{number(counts.files)} of {number(files)}"
            _set(progress, bars[0], counts.files, files, text)
            _set(progress, bars[1], counts.bytes, total, f"{size(counts.bytes)} of {size(total)}")
            _set(progress, bars[2], counts.closed, counts.tasks, _tasks(counts, throughput, why))

        yield step


def _set(progress: Progress, bar: TaskID, done: int, total: int, text: str) -> None:
    # A bar with total 0 would pulse; show it as complete.
    progress.update(bar, completed=done if total else 1, total=total or 1, text=text)


@contextmanager
def _lines(console: Console, tree: Tree) -> Iterator[Step]:
    throughput, due = Throughput(), time.monotonic() + LINE_SECONDS
    files, total = len(tree.files), tree.bytes

    def step(counts: Counts, why: str) -> None:
        nonlocal due
        tasks = _tasks(counts, throughput, why)
        if time.monotonic() < due:
            return
        due = time.monotonic() + LINE_SECONDS
        console.print(
            f"{number(counts.files)} of {number(files)} files, {size(counts.bytes)} of"
            f" {size(total)}, tasks {tasks}",
            soft_wrap=True,
        )

    yield step


def _tasks(counts: Counts, throughput: Throughput, why: str) -> str:
    rate = number(round(throughput.per_second(counts.closed)))
    state = f"waiting: {why}" if why else f"{rate} tasks/s"
    return f"{number(counts.closed)} of {number(counts.tasks)}, {state}"
