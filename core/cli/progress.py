"""Watch a run: a progress bar on a terminal, and the cause of its wait."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from core.cli.output import clean, note, stderr

if TYPE_CHECKING:
    from typing import Self
    from uuid import UUID

    from core.service.accounts.waiting import Wait
    from core.service.backend import Backend


class ProgressBar:
    """Show the progress of a run until the block ends."""

    def __init__(self, backend: Backend, run: UUID) -> None:
        from core.service.runs.watch import RunWatcher

        self.run = RunWatcher(backend, run)
        self._bar = _bar()
        self._task: Any = None
        self._last_cause = ""

    def update(self) -> str:
        """Read the run again, show its progress, and return its state."""
        state = self.run.refresh()
        self._show_wait()
        self._draw()
        return state

    def _show_wait(self) -> None:
        wait = self.run.wait if self.run.stopped is None else None
        if self.run.is_away:
            self._show_reason("PostgreSQL does not answer.", "away")
        elif wait is not None and wait.is_blocked:
            self._show_reason(why(wait), wait.blocker.cause)
        else:
            self._show_reason("")

    def _show_reason(self, text: str, cause: str = "") -> None:
        """Show a reason on the bar while it applies; without a bar, print each cause once.

        A limit may pace a run that continues in between, so its cause is not printed again.
        """
        if self._bar is not None:
            self._bar.update(self._task, why=clean(text))
        elif text and cause != self._last_cause:
            note(text)
            self._last_cause = cause

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


def why(wait: Wait) -> str:
    """Return the sentence about a wait, with the next step."""
    return f"{wait.sentence} {_remedy(wait)}" if wait.advice else wait.sentence


def why_json(wait: Wait | None) -> dict[str, Any]:
    """Return the same for `--json`; None for a run that has ended."""
    if wait is None:
        return {"waits": [], "why": None}
    reasons = [blocker.reason for blocker in wait.all]
    return {"waits": reasons, "why": wait.to_json() | {"remedy": _remedy(wait)}}


def _remedy(wait: Wait) -> str | None:
    return wait.advice.next_step("cli") if wait.advice is not None else None


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
