"""Output for people and programs: tables, JSON lines, and text without terminal commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from core.service.formatting import ago, moment

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from core.errors import PollingError

STATES = {
    "active": "green",
    "succeeded": "green",
    "done": "green",
    "ok": "green",
    "running": "cyan",
    "queued": "cyan",
    "ready": "cyan",
    "paused": "yellow",
    "partial": "yellow",
    "warn": "yellow",
    "error": "red",
    "failed": "red",
    "parked": "red",
    "fail": "red",
    "cancelled": "dim",
    "disconnected": "dim",
}
"""Colours of states."""

GAP, NARROWEST = 2, 10
"""Columns of a terminal: between two cells of a table, and what one has at least."""


@lru_cache(maxsize=1)
def stdout() -> Console:
    """Where answers go."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


@lru_cache(maxsize=1)
def stderr() -> Console:
    """Where errors, notes and progress go."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def clean(value: object, *, lines: bool = False) -> str:
    """Escape control and other invisible characters in text from outside.

    A hostile name then cannot move the cursor.

    Parameters:
      lines: Whether line ends and tabs may stay.
    """
    text = "" if value is None else str(value)
    keep = "\n\t" if lines else ""
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def say(text: str) -> None:
    """One line of an answer."""
    stdout().print(clean(text), soft_wrap=True)


def note(text: str) -> None:
    """One line beside the answer."""
    stderr().print(clean(text), soft_wrap=True, style="dim")


def fail(message: str, hint: str | None = None) -> None:
    """An error, and what to do."""
    stderr().print(clean(f"error: {message}"), soft_wrap=True, style="red")
    if hint:
        stderr().print(clean(hint), soft_wrap=True)


def fail_with(error: PollingError) -> None:
    """An error of the catalogue, and what to do on the command line."""
    fail(error.message, error.next_step("cli"))


def dump(value: object) -> None:
    """One JSON document on one line; ASCII, so that any terminal and any program can take it."""
    sys.stdout.write(json.dumps(value, default=_jsonable) + "\n")


def dump_all(rows: Iterable[object]) -> None:
    """One JSON document per line."""
    for row in rows:
        dump(row)


def _jsonable(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, wide: str | None = None
) -> None:
    """A table that fits the terminal: cells are cut rather than wrapped.

    Parameters:
      wide: The column that gives way when there is little room. Default: the last one.
    """
    from rich.table import Table

    cells = [[cell(value) for value in row] for row in rows]
    widths = [
        max(len(name), *(row[place].cell_len for row in cells))
        for place, name in enumerate(columns)
    ]
    gives_way = columns.index(wide) if wide else len(columns) - 1
    room = stdout().width - sum(
        width + GAP for place, width in enumerate(widths) if place != gives_way
    )
    widths[gives_way] = min(widths[gives_way], max(room, NARROWEST))
    drawn = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for name, width in zip(columns, widths, strict=True):
        drawn.add_column(name, no_wrap=True, overflow="ellipsis", width=width)
    for row in cells:
        drawn.add_row(*row)
    stdout().print(drawn)


def cell(value: object) -> Text:
    """A value as a cell; states are coloured."""
    from rich.text import Text

    text = clean(value)
    return Text(text, style=STATES.get(text, "") if isinstance(value, str) else "")


def describe(row: Mapping[str, Any]) -> None:
    """Names and values, one to a line."""
    from rich.table import Table

    drawn = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in row.items():
        if value not in (None, "", {}, []):
            drawn.add_row(clean(name.replace("_", " ")), cell(_shown(value)))
    stdout().print(drawn)


def _shown(value: object) -> object:
    if isinstance(value, datetime):
        return f"{moment(value)} ({ago(value)})"
    return (
        json.dumps(value, ensure_ascii=False, default=str)
        if isinstance(value, dict | list)
        else value
    )


def short(id: object) -> str:
    """As much of a UUID as a person needs."""
    return str(id)[:8]
