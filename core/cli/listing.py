"""Print listings: a page as a table for people, or all rows as JSON lines for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from core.cli.output import dump_all, note, say, short, table

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
    nouns: str,
    hint: str = "",
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
      nouns: The plural of a row, for the text of an empty listing.
      hint: The next step if nothing exists. Default: none.
      json: Print JSON lines instead of a table.
      limit: The maximum number of rows. Default: 50; with `json`, all.
      after: The cursor to start after. Default: the first row.
      wide: The column that shrinks on a narrow terminal. Default: the last one.
      **filters: The conditions of the query.
    """
    if json and limit is None and after is None:
        dump_all(listing.pages(conn, **filters))
        return
    first = after is None
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
        say(_nothing(nouns, hint, filters, first=first))
    if after is not None:
        note(f"Next page: repeat the command with --after {after}")


FILTERS = {"integration_domain": "integration", "sync_status": "state"}
"""The names of filters that people know by another one. The others lose `_id`, and their prefix."""


def _nothing(nouns: str, hint: str, filters: Mapping[str, Any], *, first: bool) -> str:
    """Return the text of an empty page. It names the filters: without them, rows may exist."""
    named = [
        f"{FILTERS.get(name, name.removeprefix('user_').removesuffix('_id'))} {_shown(value)}"
        for name, value in filters.items()
        if value not in (None, False)
    ]
    if named:
        return f"No {nouns} with {', '.join(named)}."
    return f"No {nouns}. {hint}".rstrip() if first else f"No more {nouns}."


def _shown(value: Any) -> str:
    if isinstance(value, UUID):
        return short(value)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
