"""The latest comparison of an account with its source; see `core.Comparison`."""

from __future__ import annotations

from uuid import UUID

from core.db.pool import Conn
from core.integration.results import COMPARISON, Comparison
from core.service.accounts import partitions
from core.service.formatting import ago, number


def latest(conn: Conn, account: UUID) -> Comparison | None:
    """Return the latest comparison of an account; None without a valid one."""
    return partitions.read(conn, account, COMPARISON, Comparison)


def sentence(comparison: Comparison, integration: str) -> str:
    """Return both numbers as text: `41,212 in Gmail, 41,212 here, checked 3 h ago`.

    Args:
      comparison: The two numbers, and the time of the comparison.
      integration: The name of the integration.
    """
    there, here = number(comparison.at_source), number(comparison.kept)
    return f"{there} in {integration}, {here} here, checked {ago(comparison.at)}"
