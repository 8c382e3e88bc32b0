"""The command doctor."""

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
    """Check the installation, and suggest fixes.

    The checks cover settings, servers, schema, keys, integrations, workers, clock, dispatcher,
    scheduler, blob store and accounts.

    The exit code is 1 if a check fails.

    \b
    Example:
      polling doctor
    """
    from core.service.fleet.doctor import examine

    checks = []
    for check in examine(session.settings(), _environment(), session.registry()):
        checks.append(check)
        _print_json(check) if json else _print_check(check)
    if not json:
        _print_summary(checks)
    raise typer.Exit(1 if any(check.status == "fail" for check in checks) else 0)


def _environment() -> Environment | PollingError:
    from core.errors import PollingError

    try:
        return session.environment()
    except PollingError as error:
        return error


def _print_json(check: Check) -> None:
    dump(
        {
            "name": check.name,
            "status": check.status,
            "message": check.message,
            "advice": check.advice.next_step("cli") if check.advice else None,
        }
    )


def _print_check(check: Check) -> None:
    from rich.table import Table

    grid = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column(width=1, style=STATES[check.status])
    grid.add_column(width=20, no_wrap=True, overflow="ellipsis")
    grid.add_column(overflow="fold")
    grid.add_row(MARKS[check.status], clean(check.name), clean(check.message))
    if check.advice:
        grid.add_row("", "", f"→ {clean(check.advice.next_step('cli'))}")
    stdout().print(grid)


def _print_summary(checks: list[Check]) -> None:
    failed = sum(check.status == "fail" for check in checks)
    warned = sum(check.status == "warn" for check in checks)
    say(f"{failed} failed, {warned} with warnings." if failed or warned else "All checks passed.")
