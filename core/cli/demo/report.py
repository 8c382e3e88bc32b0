"""What the demo says in the end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from core.cli.demo.comparing import Comparison
from core.cli.demo.engine import Account
from core.cli.demo.files import Tree
from core.db.pool import Conn
from core.settings import get_settings

RUN = """
SELECT state, tasks_done, tasks_parked, outputs_saved, outputs_unchanged, outputs_deleted
FROM sync_run WHERE id = %s
"""
KINDS = """
SELECT kind, count(*), coalesce(sum(size), 0)::bigint,
    count(content_text), count(content_bytes), count(blob_key)
FROM user_integration_content
WHERE user_integration_id = %s AND deleted_at IS NULL GROUP BY kind ORDER BY kind
"""
MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Told:
    """All there is to tell."""

    tree: Tree
    comparison: Comparison
    accounts: list[Account]
    seconds: float


def leftovers(console: Console, tree: Tree) -> None:
    """What is not served, and why."""
    for reason, count in sorted(tree.left_out.items()):
        console.print(
            f"  left out: {reason} ({count:,}), such as {tree.examples[reason]}",
            markup=False,
            soft_wrap=True,
        )


def summary(console: Console, conn: Conn, told: Told) -> None:
    """Tables of what was kept and what was done, and the verdict."""
    kept = Table(
        "account",
        "kind",
        "items",
        "bytes",
        "as text",
        "as bytes",
        "as blob",
        title="What is in PostgreSQL now",
    )
    ran = Table(
        "account", "run", "tasks", "parked", "saved", "unchanged", "deleted", title="What was done"
    )
    for table in (kept, ran):
        for column in table.columns[2:]:
            column.justify = "right"
    tasks = 0
    for account in told.accounts:
        for kind, *numbers in conn.execute(KINDS, (account.id,)):
            kept.add_row(
                account.domain,
                kind,
                f"{numbers[0]:,}",
                decimal(numbers[1]),
                *map("{:,}".format, numbers[2:]),
            )
        row = conn.execute(RUN, (account.run,)).fetchone()
        assert row is not None
        ran.add_row(account.domain, row[0], *map("{:,}".format, row[1:]))
        tasks += row[1] + row[2]
    console.print(kept, ran)
    console.print(
        f"{tasks:,} tasks in {told.seconds:.1f} s: {tasks / max(told.seconds, 0.001):,.0f} tasks/s"
    )
    _verdict(console, told.comparison)


def _verdict(console: Console, comparison: Comparison) -> None:
    for name in comparison.changed[:MOST_NAMED]:
        console.print(f"  changed while the demo ran, and not compared: {name}", markup=False)
    for name, how in comparison.wrong[:MOST_NAMED]:
        console.print(f"  {how}: {name}", markup=False)
    if not comparison.wrong:
        said = "The file is" if comparison.equal == 1 else f"All {comparison.equal:,} files are"
        console.print(f"{said} in the content table, byte for byte (SHA-256).", style="bold green")


def next_steps(console: Console, home: Path) -> None:
    """Where the data lies, and the commands to try next."""
    settings = get_settings()
    given = f"POLLING_HOME={quote(str(home))} " if "POLLING_HOME" in os.environ else ""
    if settings.database_url is None:
        console.print(f"The database, blobs and logs lie in {home}", markup=False, soft_wrap=True)
    console.print("The ftp account is paused: its server has ended.")
    console.print("Try next:")
    for command, why in (
        ("polling content --limit 5", "what is kept"),
        ("polling psql", "the same by SQL: SELECT * FROM user_integration_content"),
        ("polling up", "workers and scheduler; Ctrl-C ends them"),
        ("polling connect hello-world --name hello", "an account of your own"),
    ):
        console.print(f"  {given}{command}  # {why}", markup=False, soft_wrap=True)
