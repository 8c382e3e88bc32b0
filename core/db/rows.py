"""Rows by the names of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from psycopg.rows import dict_row

from core.db.pool import Conn

Row = dict[str, Any]


def fetch(conn: Conn, statement: str, names: Mapping[str, Any]) -> list[Row]:
    """Run a query, and load all its rows."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(cast(Any, statement), names).fetchall()
