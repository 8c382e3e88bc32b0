"""Queries whose rows are dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, cast

from psycopg import Cursor
from psycopg.rows import dict_row

from core.db.pool import Conn

Row = dict[str, Any]

OBJECT_BYTES = 64
"""The memory of a small Python object, such as a number, a short string or an empty list."""

JSON_TYPES = frozenset({114, 3802})
"""The types `json` and `jsonb`: https://github.com/postgres/postgres `pg_type.dat`."""

CONTROL_CHARS = bytes(range(32))


def fetch(
    conn: Conn, statement: str, params: Mapping[str, Any], *, prepare: bool | None = None
) -> list[Row]:
    """Run a query, and return all its rows.

    Args:
      conn: A connection.
      statement: The query.
      params: Its parameters, by name.
      prepare: False plans the query for these parameters, so that unused filters cost nothing.
        Default: a repeated query is planned once.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(cast(Any, statement), params, prepare=prepare).fetchall()


def fetch_within(
    conn: Conn,
    statement: str,
    params: Mapping[str, Any],
    max_bytes: int,
    *,
    shape: Callable[[Row], Row] | None = None,
) -> tuple[list[Row], bool]:
    """Run a query, and return its first rows: as many as fit into an amount of memory.

    The rows arrive one at a time. So the process never holds more than one row beyond the bound,
    however large the result is. The first row is always returned. The query is planned for its
    parameters. If rows are left, the statement is cancelled: in a transaction, it must be the last.

    Args:
      conn: A connection.
      statement: The query.
      params: Its parameters, by name.
      max_bytes: The memory that the rows may use as Python objects, as `_weight` estimates it.
      shape: Returns the row to keep. Only its columns count. Default: the row as it is.

    Returns:
      The rows, and True if the query has more.
    """
    rows: list[Row] = []
    used = 0
    with (
        conn.cursor(row_factory=dict_row) as cursor,
        # Closing the generator cancels the statement.
        closing(cast(Any, cursor.stream(cast(Any, statement), params))) as stream,
    ):
        for row in stream:
            kept = row if shape is None else shape(row)
            used += _weight(cursor, kept)
            if rows and used > max_bytes:
                return rows, True
            rows.append(kept)
    return rows, False


def _weight(cursor: Cursor[Row], kept: Row) -> int:
    """Estimate the memory of the last row as Python objects, and of its JSON text in a response.

    The estimate is too large for most rows, and never much too small. Parsed JSON can use 30 times
    the memory of its text: an empty list of three characters is an object of 72 bytes. A text with
    one emoji uses four bytes for each character, and JSON escapes a control character with six.
    """
    result = cursor.pgresult
    assert result is not None
    weight = 0
    for number, column in enumerate(cursor.description or ()):
        value = result.get_value(0, number) if column.name in kept else None
        if value is None:
            continue
        weight += OBJECT_BYTES + len(value)
        if not value.isascii():
            weight += 3 * len(value)
        if column.type_code in JSON_TYPES:
            objects = value.count(b",") + value.count(b"[") + 4 * value.count(b"{")
            weight += OBJECT_BYTES * objects
        else:
            weight += 5 * (len(value) - len(value.translate(None, CONTROL_CHARS)))
    return weight
