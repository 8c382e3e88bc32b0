"""Output for people and programs: tables, JSON lines, and text without terminal commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from core.service.formatting import ago, moment
from core.states import AccountState, RunState, TaskState

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from core.errors import PollingError

STATES: dict[str, str] = {
    AccountState.ACTIVE: "green",
    RunState.SUCCEEDED: "green",
    TaskState.DONE: "green",
    "ok": "green",
    RunState.RUNNING: "cyan",
    TaskState.QUEUED: "cyan",
    TaskState.READY: "cyan",
    AccountState.PAUSED: "yellow",
    RunState.PARTIAL: "yellow",
    TaskState.DEFERRED: "yellow",
    "stopped": "yellow",
    "warn": "yellow",
    AccountState.ERROR: "red",
    RunState.FAILED: "red",
    TaskState.PARKED: "red",
    "fail": "red",
    TaskState.CANCELLED: "dim",
    AccountState.DISCONNECTED: "dim",
    AccountState.ERASING: "dim",
}
"""The colours of states and of the results of checks."""

LABELS = {
    "attempts": "failed attempts",
    "bytes": "size",
    "complete": "complete listing",
    "consecutive_failures": "failed runs in a row",
    "deletions_held": "items in held deletions",
    "dispatch_no": "dispatch number",
    "erasing_since": "hidden since",
    "external_timestamp": "time at the source",
    "gone_at_source": "gone at the source",
    "identity": "provider account",
    "is_listed": "members named one by one",
    "integration_domain": "integration",
    "last_sync_at": "last sync",
    "next_sync_at": "next sync",
    "outputs_deleted": "items deleted",
    "outputs_saved": "items saved",
    "outputs_skipped": "items skipped",
    "outputs_unchanged": "items unchanged",
    "owed": "account's failed tasks",
    "owed_since": "first failure",
    "progress_done": "progress of the tasks that run now",
    "progress_total": "their total",
    "seconds": "duration in seconds",
    "snoozed_seconds": "seconds postponed",
    "snoozes": "times postponed",
    "status_detail": "state detail",
    "stopped_at": "stopped",
    "stopped_by": "stopped by task",
    "status_reason": "state reason",
    "sync_status": "state",
    "total": "total items",
    "user_integration_id": "account",
    "vanished": "missing items",
}
"""The labels of fields that `describe` does not print by the name of their column."""

GAP, MIN_COLUMN_WIDTH = 2, 10
"""The space between two cells of a table, and the minimum width of a cell, in characters."""


@lru_cache(maxsize=1)
def stdout() -> Console:
    """Return the console of standard output, for results."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


@lru_cache(maxsize=1)
def stderr() -> Console:
    """Return the console of standard error, for errors, notes and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def clean(value: object, *, lines: bool = False) -> str:
    """Escape control and other invisible characters in text from outside.

    A hostile name then cannot move the cursor. If `lines` is true, line ends and tabs stay.
    """
    text = "" if value is None else str(value)
    keep = "\n\t" if lines else ""
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def say(text: str) -> None:
    """Print one line of a result."""
    stdout().print(clean(text), soft_wrap=True)


def note(text: str) -> None:
    """Print one note to standard error."""
    stderr().print(clean(text), soft_wrap=True, style="dim")


def fail(message: str, hint: str | None = None) -> None:
    """Print an error and a hint to standard error."""
    stderr().print(clean(f"error: {message}"), soft_wrap=True, style="red")
    if hint:
        stderr().print(clean(hint), soft_wrap=True)


def fail_with(error: PollingError) -> None:
    """Print an error of the catalogue with its next step."""
    fail(error.message, error.next_step("cli"))


def dump(value: object) -> None:
    """Print a value as one line of JSON. It is ASCII, which every terminal and program reads."""
    sys.stdout.write(json.dumps(value, default=_jsonable) + "\n")


def dump_all(rows: Iterable[object]) -> None:
    """Print one JSON document per line."""
    for row in rows:
        dump(row)


def _jsonable(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    wide: str | None = None,
    wraps: bool = False,
) -> None:
    """Print a table that fits the terminal.

    Args:
      columns: The headings.
      rows: The cells of each row.
      wide: The column that shrinks on a narrow terminal. Default: the last one.
      wraps: True to continue a long cell of that column in the next line. Default: truncate it.
    """
    from rich.table import Table

    cells = [[cell(value) for value in row] for row in rows]
    widths = [
        max(len(name), *(row[index].cell_len for row in cells))
        for index, name in enumerate(columns)
    ]
    flexible = columns.index(wide) if wide else len(columns) - 1
    width_left = stdout().width - sum(
        width + GAP for index, width in enumerate(widths) if index != flexible
    )
    widths[flexible] = min(widths[flexible], max(width_left, MIN_COLUMN_WIDTH))
    grid = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for index, (name, width) in enumerate(zip(columns, widths, strict=True)):
        folds = wraps and index == flexible
        overflow: Literal["fold", "ellipsis"] = "fold" if folds else "ellipsis"
        grid.add_column(name, no_wrap=not folds, overflow=overflow, width=width)
    for row in cells:
        grid.add_row(*row)
    stdout().print(grid)


def cell(value: object) -> Text:
    """Return a value as a cell; states have colours."""
    from rich.text import Text

    text = clean(value)
    return Text(text, style=STATES.get(text, "") if isinstance(value, str) else "")


def describe(row: Mapping[str, Any]) -> None:
    """Print names and values, one pair per line."""
    from rich.table import Table

    grid = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in row.items():
        if value not in (None, "", {}, []):
            grid.add_row(
                clean(LABELS.get(name, name.replace("_", " "))), cell(_display_value(value))
            )
    stdout().print(grid)


def _display_value(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{moment(value)} ({ago(value)})"
    return (
        json.dumps(value, ensure_ascii=False, default=str)
        if isinstance(value, dict | list)
        else value
    )


def short(id: object) -> str:
    """Return the first eight characters of a UUID."""
    return str(id)[:8]
