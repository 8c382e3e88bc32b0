"""Rows by the names of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from psycopg.rows import dict_row

from core.db.pool import Conn

Row = dict[str, Any]


def fetch(
    conn: Conn, statement: str, params: Mapping[str, Any], *, prepare: bool | None = None
) -> list[Row]:
    """Run a query, and load all its rows.

    Parameters:
      prepare: False plans the query for these values, so that the conditions of filters that are
        not given cost nothing. Default: a query that is repeated is planned once.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(cast(Any, statement), params, prepare=prepare).fetchall()
