"""Print the result of the demo."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from rich.console import Console
from rich.table import Table

from core.demo.comparing import Comparison
from core.demo.engine import Account
from core.demo.files import Tree
from core.service.accounts import queries as account_queries
from core.service.accounts.owed import owed_by
from core.service.backend import Backend
from core.service.formatting import number, size, span
from core.service.runs import progress
from core.settings import get_settings

KEPT = ("account", "kind", "items", "size", "as text", "as bytes", "as blob")
DONE = ("account", "run", "tasks", "parked", "saved", "unchanged", "deleted")
STORED = ("texts", "binaries", "blobs")
FIGURES = ("tasks_done", "tasks_parked", "outputs_saved", "outputs_unchanged", "outputs_deleted")
MAX_NAMED_FILES = 10
"""The maximum number of changed or wrong files that the summary names."""


def leftovers(console: Console, tree: Tree) -> None:
    """Print the number of skipped entries and an example, by reason."""
    for reason, count in sorted(tree.left_out.items()):
        console.print(
            f"  skipped: {reason} ({number(count)}), such as {tree.examples[reason]}",
            soft_wrap=True,
        )


def summary(
    backend: Backend,
    console: Console,
    accounts: Sequence[Account],
    seconds: float,
    comparison: Comparison,
) -> None:
    """Print tables of the content and of the runs, and the result of the comparison.

    `seconds` is the total time of the runs.
    """
    kept = _table("Content in PostgreSQL", KEPT)
    done = _table("Runs", DONE)
    tasks = 0
    with backend.database.connection() as conn:
        for account in accounts:
            for row in account_queries.account_kinds(conn, account.id):
                stored = (number(row[name]) for name in STORED)
                cells = (row["kind"], number(row["items"]), size(row["bytes"]), *stored)
                kept.add_row(account.domain, *cells)
            run = progress.progress(conn, account.run).summary(owed_by(conn, account.id))
            done.add_row(account.domain, run["state"], *(number(run[name]) for name in FIGURES))
            tasks += run["tasks_done"] + run["tasks_parked"]
    console.print(kept, done)
    rate = number(tasks / max(seconds, 0.001))
    console.print(f"{number(tasks)} tasks in {span(seconds)}: {rate} tasks/s")
    _verdict(console, comparison)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(*columns, title=title)
    for column in table.columns[2:]:
        column.justify = "right"
    return table


def _verdict(console: Console, comparison: Comparison) -> None:
    for name in comparison.changed[:MAX_NAMED_FILES]:
        console.print(f"  changed during the demo, not compared: {name}")
    for name, how in comparison.wrong[:MAX_NAMED_FILES]:
        console.print(f"  {how}: {name}")
    if not comparison.wrong:
        subject = "The file is" if comparison.equal == 1 else f"All {comparison.equal:,} files are"
        console.print(
            f"{subject} in the content table, byte for byte (SHA-256).", style="bold green"
        )


def next_steps(console: Console, home: Path) -> None:
    """Print the data folder, and commands to try next."""
    settings = get_settings()
    prefix = f"POLLING_HOME={quote(str(home))} " if "POLLING_HOME" in os.environ else ""
    if settings.database_url is None:
        console.print(f"Database, blobs and logs: {home}", soft_wrap=True)
    console.print("The ftp account is paused, because its server has stopped.")
    console.print("Try next:")
    for command, why in (
        ("polling content --limit 5", "list content"),
        ("polling psql", "query it with SQL: SELECT * FROM user_integration_content"),
        ("polling up", "start workers, scheduler, API and dashboard"),
        ("polling connect hello-world --name hello", "connect an account of your own"),
    ):
        console.print(f"  {prefix}{command}  # {why}", soft_wrap=True)
