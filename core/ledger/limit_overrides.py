"""The operator's figures of limits: those of `POLLING_LIMITS`, replaced by rows of the database.

The leader and the workers read the rows every few seconds, so a change needs no restart.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.db.pool import Conn
from core.settings import LimitOverride

Overrides = Mapping[str, Mapping[str, LimitOverride]]
"""The figures, by the integration's domain and the limit's name."""

# The table has one row for each limit that an operator has changed.
LOAD = "SELECT domain, name, figures FROM limit_override"
SET = """
INSERT INTO limit_override (domain, name, figures) VALUES (%s, %s, %s::jsonb)
ON CONFLICT (domain, name) DO UPDATE SET figures = excluded.figures, changed_at = now()
"""
RESET = "DELETE FROM limit_override WHERE domain = %s AND name = %s RETURNING 1"


def effective(conn: Conn, settings: Overrides) -> Overrides:
    """Return the figures that apply now.

    Args:
      conn: A connection.
      settings: The figures of `POLLING_LIMITS`. A row replaces each figure that it names.
    """
    found = {domain: dict(limits) for domain, limits in settings.items()}
    for (domain, name), figures in changed(conn).items():
        limits = found.setdefault(domain, {})
        base = limits.get(name, LimitOverride())
        limits[name] = base.model_copy(update=figures.model_dump(exclude_none=True))
    return found


def changed(conn: Conn) -> dict[tuple[str, str], LimitOverride]:
    """Return the figures of the rows, by domain and name."""
    rows = conn.execute(LOAD).fetchall()
    return {(domain, name): LimitOverride.model_validate(row) for domain, name, row in rows}


def change(conn: Conn, domain: str, name: str, figures: LimitOverride) -> None:
    """Replace the figures of one limit."""
    conn.execute(SET, (domain, name, figures.model_dump_json(exclude_none=True)))


def reset(conn: Conn, domain: str, name: str) -> bool:
    """Delete the row of a limit. Returns False if it has none."""
    return conn.execute(RESET, (domain, name)).fetchone() is not None
