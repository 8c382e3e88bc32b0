"""Queries whose rows are dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from psycopg.rows import dict_row

from core.db.pool import Conn

Row = dict[str, Any]


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
