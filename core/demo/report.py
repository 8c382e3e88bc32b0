"""What the demo says in the end."""

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
from core.service import listings
from core.service.backend import Backend
from core.service.formatting import number, size, span
from core.service.runs import progress
from core.settings import get_settings

KEPT = ("account", "kind", "items", "size", "as text", "as bytes", "as blob")
DONE = ("account", "run", "tasks", "parked", "saved", "unchanged", "deleted")
STORED = ("texts", "binaries", "blobs")
FIGURES = ("tasks_done", "tasks_parked", "outputs_saved", "outputs_unchanged", "outputs_deleted")
MAX_NAMED_FILES = 10


def leftovers(console: Console, tree: Tree) -> None:
    """Name what is not served, and why."""
    for reason, count in sorted(tree.left_out.items()):
        console.print(
            f"  left out: {reason} ({number(count)}), such as {tree.examples[reason]}",
            soft_wrap=True,
        )


def summary(
    backend: Backend,
    console: Console,
    accounts: Sequence[Account],
    seconds: float,
    comparison: Comparison,
) -> None:
    """Print tables of what is kept and what was done, and the verdict.

    Args:
      seconds: How long the runs took, all together.
    """
    kept = _table("What is in PostgreSQL now", KEPT)
    done = _table("What was done", DONE)
    tasks = 0
    with backend.database.connection() as conn:
        for account in accounts:
            for row in listings.account_kinds(conn, account.id):
                stored = (number(row[name]) for name in STORED)
                cells = (row["kind"], number(row["items"]), size(row["bytes"]), *stored)
                kept.add_row(account.domain, *cells)
            run = progress.progress(conn, account.run).summary()
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
        console.print(f"  changed while the demo ran, and not compared: {name}")
    for name, how in comparison.wrong[:MAX_NAMED_FILES]:
        console.print(f"  {how}: {name}")
    if not comparison.wrong:
        subject = "The file is" if comparison.equal == 1 else f"All {comparison.equal:,} files are"
        console.print(
            f"{subject} in the content table, byte for byte (SHA-256).", style="bold green"
        )


def next_steps(console: Console, home: Path) -> None:
    """Print where the data lies, and the commands to try next."""
    settings = get_settings()
    prefix = f"POLLING_HOME={quote(str(home))} " if "POLLING_HOME" in os.environ else ""
    if settings.database_url is None:
        console.print(f"The database, blobs and logs lie in {home}", soft_wrap=True)
    console.print("The ftp account is paused: its server has ended.")
    console.print("Try next:")
    for command, why in (
        ("polling content --limit 5", "what is kept"),
        ("polling psql", "the same by SQL: SELECT * FROM user_integration_content"),
        ("polling up", "workers and scheduler; Ctrl-C ends them"),
        ("polling connect hello-world --name hello", "an account of your own"),
    ):
        console.print(f"  {prefix}{command}  # {why}", soft_wrap=True)
