"""Keyset pagination: the only definition of a page and of a cursor.

A cursor is the key of the last row of a page. So the cost of a page does not depend on its
position.

A page is bounded by rows and by bytes, because users and providers decide how large a row is. A
page that reaches the bound on bytes ends earlier, and has a cursor (ADR 83). Where no index serves
a filter, a page is also bounded by the rows that it compares. It may then be empty, and has a
cursor (ADR 101).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from core.db.pool import Conn
from core.db.rows import Row, fetch, fetch_within
from core.errors import InvalidInput
from core.results.text import is_storable
from core.service.errors import not_found

MAX_PAGE_ROWS = 1_000

MAX_SCANNED_ROWS = 10_000
"""The rows that one page compares with its filters. A page that reaches it ends earlier."""

MAX_SCATTERED_ROWS = 1_000
"""The same for the items of all accounts of a user, which are far apart in the table."""

MAX_PAGE_BYTES = 8 * 1024 * 1024
"""The memory of a page's rows, in bytes, unless its first row alone is larger.

A page of 1,000 ordinary rows uses less: metadata of 4 KiB and 20 properties in each row fit.
"""

PLURALS = {
    "account": "accounts",
    "run": "runs",
    "task": "tasks",
    "deletion": "deletions",
    "content": "content",
}

Type = Literal["bigint", "float8", "text", "timestamptz", "uuid"]
"""The PostgreSQL types that a key may have."""


# Rows come from an index in the order of the key. The planner expects few rows, and would otherwise
# read and sort all that an account has.
IN_ORDER = """
SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)
"""


@dataclass(frozen=True, slots=True)
class Page:
    """The rows of one page, and the cursor of the next page; None on the last page."""

    rows: list[Row]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Keyset:
    """The columns that order a listing and identify each row.

    A statement that uses it orders by these columns, compares them with `place`, and limits its
    rows with `params`. The limit is one row more than the page, to detect whether another page
    follows.

    Args:
      columns: The columns with their types, the most significant one first.
    """

    columns: Mapping[str, Type]

    @property
    def place(self) -> str:
        """The key of the cursor as a row of placeholders: `(%(after_id)s::bigint)`."""
        placeholders = (f"%(after_{column})s::{kind}" for column, kind in self.columns.items())
        return f"({', '.join(placeholders)})"

    @property
    def end(self) -> str:
        """The key of the last row that a page compares, as a row of placeholders."""
        placeholders = (f"%(end_{column})s::{kind}" for column, kind in self.columns.items())
        return f"({', '.join(placeholders)})"

    @property
    def is_endless(self) -> str:
        """The condition in SQL that is true if a page compares all rows after its cursor."""
        column, kind = next(iter(self.columns.items()))
        return f"%(end_{column})s::{kind} IS NULL"

    @property
    def column_list(self) -> str:
        """The columns as a list in SQL."""
        return ", ".join(self.columns)

    @property
    def is_first_page(self) -> str:
        """The condition in SQL that is true without a cursor."""
        column, kind = next(iter(self.columns.items()))
        return f"%(after_{column})s::{kind} IS NULL"

    def params(self, limit: int, after: str | None) -> Row:
        """Return the parameters of the query: `limit` and those of `place`.

        Without a cursor, the parameters of `place` are None.

        Raises:
          InvalidInput: The cursor is not valid for this listing.
        """
        values: Sequence[Any] = [None] * len(self.columns) if after is None else self.decode(after)
        place = {
            f"after_{column}": value for column, value in zip(self.columns, values, strict=True)
        }
        return {"limit": bounded(limit) + 1, **place}

    def read(
        self,
        conn: Conn,
        statement: str,
        params: Row,
        *,
        shape: Callable[[Row], Row] | None = None,
    ) -> Page:
        """Read a page, of at most `MAX_PAGE_BYTES`; see `fetch_page`.

        Args:
          conn: A connection.
          statement: A query of this key.
          params: Its parameters, with those of `params`.
          shape: Returns the row to keep, with the columns of the key. Default: the row as it is.
        """
        rows, is_cut = fetch_page(conn, statement, params, shape=shape)
        return self.page(rows, params["limit"] - 1, is_cut=is_cut)

    def read_bounded(
        self, conn: Conn, statement: str, end: str, params: Row, *, is_scattered: bool = False
    ) -> Page:
        """Read a page that compares at most `MAX_SCANNED_ROWS` rows with its filters.

        Args:
          conn: A connection in a transaction.
          statement: A query of this key that compares no row beyond `end`.
          end: A query for the key of the row after `skipped` others, in the order of the first
            query, without its filters. Only an index must serve it.
          params: The parameters of both, with those of `params`.
          is_scattered: True for at most `MAX_SCATTERED_ROWS` rows. Default: False.
        """
        conn.execute(IN_ORDER)
        most = min(MAX_SCANNED_ROWS, MAX_SCATTERED_ROWS) if is_scattered else MAX_SCANNED_ROWS
        ends = fetch(conn, end, params | {"skipped": most - 1}, prepare=False)
        last = ends[0] if ends else dict.fromkeys(self.columns)
        page = self.read(
            conn, statement, params | {f"end_{column}": last[column] for column in self.columns}
        )
        if page.cursor is None and ends:
            return Page(page.rows, self.encode(last))
        return page

    def page(self, rows: Sequence[Row], limit: int, *, is_cut: bool = False) -> Page:
        """Return the page of rows that were read with `params` and the same limit.

        Args:
          rows: The rows, one more than the page if the query has more.
          limit: The limit of the request.
          is_cut: True if the query has more rows than these.
        """
        shown = list(rows[: bounded(limit)])
        more = is_cut or len(rows) > len(shown)
        return Page(shown, self.encode(shown[-1]) if more else None)

    def encode(self, row: Mapping[str, Any]) -> str:
        """Return the cursor of the page that begins after this row."""
        return encode_cursor([row[column] for column in self.columns])

    def decode(self, cursor: str) -> list[Any]:
        """Return the key that a cursor encodes.

        Raises:
          InvalidInput: The cursor is not valid for this listing.
        """
        values = decode_cursor(cursor)
        try:
            return [
                _READ[kind](value)
                for kind, value in zip(self.columns.values(), values, strict=True)
            ]
        except (ValueError, TypeError, AttributeError):
            raise invalid_cursor() from None


@dataclass(frozen=True, slots=True)
class PagedQuery:
    """A query on one table that reads page by page.

    Args:
      columns, table: The selected columns and their table.
      key: The columns of the order, with their types. An index on them serves the query.
      newest_first: True for descending order.
      filters: The names of the filters, with their types. By default, a filter compares the column
        of its name for equality.
      bounds: The conditions of filters that are not an equality, by the name of the filter.
      where: A condition of every page.
      visible: A condition of every row, also of one that is read by its id.
    """

    columns: str
    table: str
    key: Keyset
    newest_first: bool = False
    filters: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, str] = field(default_factory=dict)
    where: str = "true"
    visible: str = "true"
    statement: str = field(init=False, repr=False)
    by_id: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Build the statements once. A filter without a value is NULL and costs nothing."""
        filters = "".join(
            f" AND (%({name})s::{kind} IS NULL OR {self.bounds.get(name, f'{name} = %({name})s')})"
            for name, kind in self.filters.items()
        )
        direction, further = ("DESC", "<") if self.newest_first else ("ASC", ">")
        order = ", ".join(f"{column} {direction}" for column in self.key.columns)
        statement = f"""
        SELECT {self.columns} FROM {self.table} WHERE {self.visible} AND {self.where}{filters}
          AND ({self.key.is_first_page} OR ({self.key.column_list}) {further} {self.key.place})
        ORDER BY {order} LIMIT %(limit)s
        """
        object.__setattr__(self, "statement", statement)
        by_id = f"SELECT {self.columns} FROM {self.table} WHERE {self.visible} AND id = %(id)s"
        object.__setattr__(self, "by_id", by_id)

    def page(
        self, conn: Conn, *, limit: int = 50, after: str | None = None, **filters: Any
    ) -> Page:
        """Read one page.

        Args:
          conn: A connection.
          limit: Rows of the page, from 1 to `MAX_PAGE_ROWS`.
          after: The cursor of the page before. Default: the first page.
          filters: Values of `filters` and of the parameters in `where`. None does not filter;
            `deleted=False` omits deleted rows.

        Raises:
          InvalidInput: The cursor is not valid for this listing.
          TypeError: A filter is unknown.
        """
        unknown = [name for name in filters if f"%({name})s" not in self.statement]
        if unknown:
            raise TypeError(f"{self.table} cannot be filtered by {', '.join(unknown)}")
        params = dict.fromkeys(self.filters) | filters | self.key.params(limit, after)
        return self.key.read(conn, self.statement, params)

    def pages(self, conn: Conn, **filters: Any) -> Iterator[Row]:
        """Read all rows, one page at a time."""
        after: str | None = None
        while True:
            page = self.page(conn, limit=MAX_PAGE_ROWS, after=after, **filters)
            yield from page.rows
            after = page.cursor
            if after is None:
                return

    def one(self, conn: Conn, kind: str, id: UUID | int) -> Row:
        """Read one row by its id.

        Args:
          conn: A connection.
          kind: `account`, `run`, `task` or `content`, for the error.
          id: The id of the row.

        Raises:
          NotFound: The row does not exist.
        """
        rows = fetch(conn, self.by_id, {"id": id})
        if not rows:
            raise not_found(kind, id)
        return rows[0]


def fetch_page(
    conn: Conn,
    statement: str,
    params: Row,
    *,
    shape: Callable[[Row], Row] | None = None,
) -> tuple[list[Row], bool]:
    """Read the first rows of a query, of at most `MAX_PAGE_BYTES`.

    In a transaction, this must be the last statement; see `fetch_within`.

    Returns:
      The rows, and True if the query has more.
    """
    return fetch_within(conn, statement, params, MAX_PAGE_BYTES, shape=shape)


def bounded(limit: int) -> int:
    """Clamp a requested page size to the range from 1 to `MAX_PAGE_ROWS` rows."""
    return min(max(limit, 1), MAX_PAGE_ROWS)


def encode_cursor(place: Sequence[object]) -> str:
    """Encode a position in a listing as URL-safe text."""
    text = json.dumps(list(place), default=str)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> list[Any]:
    """Return the values of a cursor, without a check of their number and types.

    Raises:
      InvalidInput: The text is not a cursor.
    """
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        place = None
    if not isinstance(place, list):
        raise invalid_cursor()
    return place


def invalid_cursor() -> InvalidInput:
    """Return the error for a cursor that is malformed or belongs to another listing."""
    return InvalidInput("cursor-invalid")


def _number(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError
    return value


def _float(value: Any) -> float:
    if type(value) is int:
        value = _number(value)  # a larger one has no float
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not is_storable(value):
        raise ValueError
    return value


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError
    return moment


_READ: Mapping[str, Callable[[Any], Any]] = {
    "bigint": _number,
    "float8": _float,
    "text": _text,
    "timestamptz": _moment,
    "uuid": UUID,
}
