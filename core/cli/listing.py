"""Print listings: a page as a table for people, or all rows as JSON lines for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from core.cli.output import dump_all, note, say, table

if TYPE_CHECKING:
    from core.db.pool import Conn
    from core.db.rows import Row
    from core.service.pagination import PagedQuery

PAGE = 50


def print_page(
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
    """Print a page of a listing.

    Args:
      conn: The database connection.
      listing: The query to read pages from.
      columns: The headings of the table.
      cells: Returns the cells of a row.
      command: The command that shows the next page, without `--after CURSOR`.
      empty: The text for an empty listing.
      json: Print JSON lines instead of a table.
      limit: The maximum number of rows. Default: 50; with `json`, all.
      after: The cursor to start after. Default: the first row.
      wide: The column that shrinks on a narrow terminal. Default: the last one.
      **filters: The conditions of the query.
    """
    if json and limit is None and after is None:
        dump_all(listing.pages(conn, **filters))
        return
    remaining, rows = limit or PAGE, []
    while remaining > 0:
        page = listing.page(conn, limit=remaining, after=after, **filters)
        rows += page.rows
        remaining, after = remaining - len(page.rows), page.cursor
        if after is None:
            break
    if json:
        dump_all(rows)
    elif rows:
        table(columns, map(cells, rows), wide=wide)
    else:
        say(empty)
    if after is not None:
        note(f"Next page: {command} --after {after}")
