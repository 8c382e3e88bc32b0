"""The plans of the statements that the engine's own code executes.

`explained(conn)` runs each statement three times: twice with EXPLAIN (ANALYZE, BUFFERS), rolled
back, and then as it is. The first plan is for the values of the parameters, and the second one is
the generic plan, which PostgreSQL may reuse for all values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import Cursor, sql
from psycopg.rows import tuple_row

from core.db.pool import Conn

EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "
EXPLAINED = re.compile(r"\s*(?:--.*\n\s*)*(SELECT|WITH|INSERT|UPDATE|DELETE)\b")
PLACEHOLDER = re.compile(r"%(?:%|s|\((\w+)\)s)")


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan as it was executed.

    Attributes:
      statement: The text of the statement.
      generic: True for the plan for all values.
      pages: The number of pages that it read, whether or not they were in memory.
      rows: The number of rows that all nodes returned, removed or joined. A loop over rows in
        memory reads no pages.
      root: The plan itself.
    """

    statement: str
    generic: bool
    pages: int
    rows: float
    root: Mapping[str, Any]


class _Explaining(Cursor[Any]):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        plans = getattr(self.connection, "plans", None)
        if plans is not None and isinstance(query, str) and EXPLAINED.match(query):
            self.connection.plans = None  # type: ignore[attr-defined]
            try:
                for generic in (False, True):
                    plans.append(plan_of(self.connection, query, params, generic=generic))
            finally:
                self.connection.plans = plans  # type: ignore[attr-defined]
        return super().execute(query, params, **options)


@contextmanager
def explained(conn: Conn) -> Iterator[list[Plan]]:
    """Collect the plans of all statements that a connection executes during the block."""
    plans: list[Plan] = []
    conn.cursor_factory = _Explaining
    conn.plans = plans  # type: ignore[attr-defined]
    try:
        yield plans
    finally:
        conn.cursor_factory = Cursor
        del conn.plans  # type: ignore[attr-defined]


def plan_of(conn: Any, query: str, params: Any, *, generic: bool = False) -> Plan:
    """Execute a statement, roll it back, and return its plan."""
    literals: list[str] = []
    text = _numbered(query, params, conn, literals)
    with conn.transaction(force_rollback=True):
        cursor = Cursor(conn, row_factory=tuple_row)
        if generic:
            cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        else:
            cursor.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        cursor.execute("PREPARE explained AS " + text)
        try:
            values = f"({', '.join(literals)})" if literals else ""
            row = cursor.execute(EXPLAIN + "EXECUTE explained" + values).fetchone()
        finally:
            cursor.execute("DEALLOCATE explained")
    root = row[0][0]["Plan"]
    pages = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
    return Plan(query, generic, pages, sum(map(_handled, nodes(root))), root)


def _numbered(query: str, params: Any, conn: Any, literals: list[str]) -> str:
    """Return a statement with numbered parameters, and append their values as literals."""
    if params is None:
        return query
    numbers: dict[str, int] = {}
    positions = iter(params if not isinstance(params, Mapping) else ())

    def number(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        name = match[1]
        if name is None or name not in numbers:
            value = next(positions) if name is None else params[name]
            literals.append(sql.Literal(value).as_string(conn))
            if name is None:
                return f"${len(literals)}"
            numbers[name] = len(literals)
        return f"${numbers[name]}"

    return PLACEHOLDER.sub(number, query)


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Iterate over the nodes of a plan."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def _handled(node: Mapping[str, Any]) -> float:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
    removed += node.get("Rows Removed by Index Recheck", 0)
    return float(node["Actual Loops"] * (node["Actual Rows"] + removed))
