"""Watching a run: a progress bar on a terminal, and what it waits for."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from core.cli.output import ago, clean, note, stderr
from core.errors import PollingError

if TYPE_CHECKING:
    from typing import Self
    from uuid import UUID

    from core.api.backend import Backend
    from core.api.progress import Progress, Wait

REASONS_SECONDS = 1.0
"""How often it is asked what the run waits for."""


class Watcher:
    """Looks at a run, and shows it.

    Attributes:
      now: The run as it was at the last look.
      stopped: Why it cannot go on without a person, if so.
    """

    now: Progress

    def __init__(self, backend: Backend, run: UUID) -> None:
        self._backend, self._run = backend, run
        self.stopped: PollingError | None = None
        self._bar = _bar()
        self._task: Any = None
        self._asked = 0.0
        self._cost = 0.0
        self._said: str | None = None

    @property
    def pause(self) -> float:
        """Seconds until the next look, longer for large runs, whose counts take time."""
        return min(max(0.1, 5 * self._cost), 5.0)

    def look(self) -> str:
        """Read the run again. Returns its state."""
        from core.api import progress
        from core.db.pool import UNAVAILABLE

        began = time.monotonic()
        try:
            with self._backend.database.connection() as conn:
                self.now = progress.progress(conn, self._run)
                if self.now.state == "running" and began - self._asked >= REASONS_SECONDS:
                    self._asked = began
                    account = progress.load_account(conn, self.now)
                    self.stopped = _stopped(account)
                    self._say(progress.waits(conn, account, self.now))
        except UNAVAILABLE:
            if not hasattr(self, "now"):
                raise
            self._describe("PostgreSQL does not answer")
        self._cost = time.monotonic() - began
        self._draw()
        return self.now.state

    def _say(self, waits: list[Wait]) -> None:
        if waits and self.stopped is None:
            first = waits[0]
            until = f", goes on {ago(first.until)}" if first.until else ""
            self._describe(
                f"{first.reason}{until}" + (f" (try: {first.advice})" if first.advice else ""),
                first.reason,
            )
        else:
            self._describe("")

    def _describe(self, text: str, key: str | None = None) -> None:
        """Once for each reason; the bar shows it as long as it holds."""
        key = text if key is None else key
        if self._bar is not None:
            self._bar.update(self._task, why=clean(text))
        elif text and key != self._said:
            note(f"Waits: {text}")
        self._said = key

    def _draw(self) -> None:
        if self._bar is not None:
            done = self.now.tasks_done + self.now.tasks_parked
            self._bar.update(
                self._task,
                completed=done,
                total=max(self.now.known, 1),
                saved=self.now.outputs_saved,
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None, saved=0, why="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar() -> Any:
    """Tasks done of those known so far; transient, as the summary says it all."""
    if not stderr().is_terminal:
        return None
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    return Progress(
        SpinnerColumn(),
        BarColumn(bar_width=20),
        TextColumn(
            "{task.completed} of {task.total} tasks, {task.fields[saved]} saved", markup=False
        ),
        TimeElapsedColumn(),
        TextColumn(
            "{task.fields[why]}",
            markup=False,
            style="yellow",
            table_column=Column(no_wrap=True, ratio=1),
        ),
        console=stderr(),
        transient=True,
    )


def _stopped(account: Any) -> PollingError | None:
    """Why the run cannot end: its account waits for a person."""
    from core.api.accounts import require_running

    try:
        require_running(account)
    except PollingError as error:
        return error
    return None
