"""Watch a run: a progress bar on a terminal, and the reasons for which it waits."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from core.cli.output import clean, note, stderr
from core.service.formatting import ago

if TYPE_CHECKING:
    from typing import Self
    from uuid import UUID

    from core.service.backend import Backend
    from core.service.runs.progress import Blocker


class ProgressBar:
    """Show the progress of a run until the block ends."""

    def __init__(self, backend: Backend, run: UUID) -> None:
        from core.service.runs.watch import RunWatcher

        self.run = RunWatcher(backend, run)
        self._bar = _bar()
        self._task: Any = None
        self._last_reason: str | None = None

    def update(self) -> str:
        """Read the run again, show its progress, and return its state."""
        state = self.run.refresh()
        self._show_blocker()
        self._draw()
        return state

    def _show_blocker(self) -> None:
        blockers = self.run.blockers if self.run.stopped is None else []
        if self.run.is_away:
            self._show_reason("PostgreSQL does not answer")
        elif blockers:
            blocker = blockers[0]
            until = f" (continues {ago(blocker.until)})" if blocker.until else ""
            step = f". {blocker.advice.next_step('cli')}" if blocker.advice else ""
            self._show_reason(f"{blocker.reason}{until}{step}", blocker.reason)
        else:
            self._show_reason("")

    def _show_reason(self, text: str, key: str | None = None) -> None:
        """Show a reason on the bar while it applies; without a bar, print each reason once."""
        key = text if key is None else key
        if self._bar is not None:
            self._bar.update(self._task, why=clean(text))
        elif text and key != self._last_reason:
            note(f"Waiting: {text}")
        self._last_reason = key

    def _draw(self) -> None:
        if self._bar is not None:
            now = self.run.now
            self._bar.update(
                self._task,
                completed=now.tasks_done + now.tasks_parked + now.tasks_deferred,
                total=max(now.known, 1),
                saved=now.outputs_saved,
                report=f" (running tasks: {report})" if (report := now.report()) else "",
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None, saved=0, report="", why="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def with_advice(blocker: Blocker) -> str:
    """Return the reason for a wait with its next step."""
    return blocker.reason + (f". {blocker.advice.next_step('cli')}" if blocker.advice else "")


def _bar() -> Any:
    """Return a bar that counts closed and known tasks, or None without a terminal.

    The bar disappears at the end, because the summary repeats its numbers.
    """
    if not stderr().is_terminal:
        return None
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    return Progress(
        SpinnerColumn(),
        BarColumn(bar_width=20),
        TextColumn(
            "{task.completed} of {task.total} tasks, {task.fields[saved]} saved"
            "{task.fields[report]}",
            markup=False,
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
