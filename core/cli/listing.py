"""Listings: pages as tables for people, and everything as JSON lines for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from core.cli.output import dump_all, note, say, table

if TYPE_CHECKING:
    from core.db.pool import Conn
    from core.db.rows import Row
    from core.service.pagination import PagedQuery

PAGE = 50


def show(
    conn: Conn,
    listing: PagedQuery,
    columns: Sequence[str],
    cells: Callable[[Row], Sequence[object]],
    *,
    command: str,
    empty: str,
    json: bool,
    limit: int | None,
    after: str | None = None,
    wide: str | None = None,
    **filters: Any,
) -> None:
    """Print a listing.

    Parameters:
      cells: The cells of a row.
      command: What shows the next page, but for `--after CURSOR`.
      empty: What is said where there is nothing.
      wide: The column that gives way when there is little room.
    """
    if json and limit is None and after is None:
        dump_all(listing.pages(conn, **filters))
        return
    left, rows = limit or PAGE, []
    while left > 0:
        page = listing.page(conn, limit=left, after=after, **filters)
        rows += page.rows
        left, after = left - len(page.rows), page.cursor
        if after is None:
            break
    if json:
        dump_all(rows)
    elif rows:
        table(columns, map(cells, rows), wide=wide)
    else:
        say(empty)
    if after is not None:
        note(f"More: {command} --after {after}")
