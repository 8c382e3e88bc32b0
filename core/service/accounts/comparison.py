"""The latest comparison of an account with its source; see `core.Comparison`."""

from __future__ import annotations

from uuid import UUID

from pydantic import ValidationError

from core.db.pool import Conn
from core.integration.results import COMPARISON, Comparison
from core.service.formatting import ago, number

# The primary key serves it.
LATEST = """
SELECT value FROM sync_state
WHERE user_integration_id = %s AND partition = %s AND value IS NOT NULL
"""


def latest(conn: Conn, account: UUID) -> Comparison | None:
    """Return the latest comparison of an account; None without a valid one."""
    row = conn.execute(LATEST, (account, COMPARISON)).fetchone()
    try:
        return Comparison.model_validate(row[0]) if row is not None else None
    except ValidationError:
        return None


def sentence(comparison: Comparison, integration: str) -> str:
    """Return both numbers as text: `41,212 in Gmail, 41,212 here, checked 3 h ago`.

    Args:
      comparison: The two numbers, and the time of the comparison.
      integration: The name of the integration.
    """
    there, here = number(comparison.at_source), number(comparison.kept)
    return f"{there} in {integration}, {here} here, checked {ago(comparison.at)}"
