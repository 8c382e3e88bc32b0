"""The command users: what users take of the fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from core.cli.output import dump_all, say, table
from core.cli.session import backend
from core.cli.types import Json
from core.service.formatting import size

if TYPE_CHECKING:
    from core.db.rows import Row


def users(
    user_id: Annotated[
        str | None, typer.Argument(metavar="USER", help="Show the days of this user.")
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(min=1, max=400, help="The latest days (UTC). Default: 1; with USER, 30."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Maximum number of users.")] = 50,
    json: Json = False,
) -> None:
    """List what users take of the fleet: polls, tasks, time of threads, and bytes.

    The user with the most thread-seconds comes first. The numbers are some seconds old.

    \b
    Examples:
      polling users
      polling users ann --days 7
    """
    from core.service import use

    with backend() as engine, engine.database.connection() as conn:
        if user_id is None:
            rows, first = use.of_users(conn, days=days or 1, limit=limit), "user_id"
        else:
            rows, first = use.by_day(conn, user_id, days or 30), "day"
    if json:
        dump_all(rows)
    elif not rows:
        say("No use in these days.")
    else:
        heading = "USER" if user_id is None else "DAY"
        columns = (heading, "POLLS", "TASKS", "THREAD SECONDS", "BYTES IN", "BYTES KEPT")
        table(columns, (_cells(row, first) for row in rows), wide=heading)


def _cells(row: Row, first: str) -> tuple[object, ...]:
    return (
        row[first],
        row["polls"],
        row["tasks"],
        round(row["thread_seconds"], 1),
        size(row["bytes_in"]),
        size(row["bytes_kept"]),
    )
