"""`polling doctor`: is everything as it should be?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from core.cli import session
from core.cli.output import STATES, clean, dump, say, stdout
from core.cli.types import Json

if TYPE_CHECKING:
    from core.environment import Environment
    from core.errors import PollingError
    from core.service.fleet.doctor import Check

MARKS = {"ok": "✓", "warn": "!", "fail": "✗"}


def doctor(json: Json = False) -> None:
    """Check servers, keys, plugins, workers, the clock and the queue, and say what to do.

    Exits with 1 if one fails.

    Example:

    \b
      polling doctor
    """
    from core.service.fleet.doctor import examine

    checks = []
    for check in examine(session.settings(), _environment(), session.registry()):
        checks.append(check)
        _dump(check) if json else _show(check)
    if not json:
        _conclude(checks)
    raise typer.Exit(1 if any(check.status == "fail" for check in checks) else 0)


def _environment() -> Environment | PollingError:
    from core.errors import PollingError

    try:
        return session.environment()
    except PollingError as error:
        return error


def _dump(check: Check) -> None:
    dump(
        {
            "name": check.name,
            "status": check.status,
            "message": check.message,
            "advice": check.advice.next_step("cli") if check.advice else None,
        }
    )


def _show(check: Check) -> None:
    from rich.table import Table

    drawn = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    drawn.add_column(width=1, style=STATES[check.status])
    drawn.add_column(width=20, no_wrap=True, overflow="ellipsis")
    drawn.add_column(overflow="fold")
    drawn.add_row(MARKS[check.status], clean(check.name), clean(check.message))
    if check.advice:
        drawn.add_row("", "", f"→ {clean(check.advice.next_step('cli'))}")
    stdout().print(drawn)


def _conclude(checks: list[Check]) -> None:
    failed = sum(check.status == "fail" for check in checks)
    warned = sum(check.status == "warn" for check in checks)
    say(f"{failed} failed, {warned} to look at." if failed or warned else "All is well.")
