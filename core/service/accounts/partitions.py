"""The partitions of an account's state that the engine shows."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from core.content.visible import visible
from core.db.pool import Conn
from core.integration.results import NOTICE, Notice
from core.results.text import sanitize

M = TypeVar("M", bound=BaseModel)

MAX_NOTICE_CHARS = 1_000

# The primary key serves it.
STATE_OF_PARTITION = f"""
SELECT value FROM sync_state
WHERE user_integration_id = %(account)s AND partition = %(partition)s AND value IS NOT NULL
  AND {visible("%(account)s::uuid")}
"""

OF_CONNECTION = "SELECT notice FROM user_integration WHERE id = %s"


def read(conn: Conn, account: UUID, partition: str, model: type[M]) -> M | None:
    """Return the value of a partition; None without a valid one."""
    row = conn.execute(STATE_OF_PARTITION, {"account": account, "partition": partition}).fetchone()
    try:
        return model.model_validate(row[0]) if row is not None else None
    except ValidationError:
        return None


def notice(conn: Conn, account: UUID) -> str | None:
    """Return the latest notice of an account: of its runs, or else of its connection.

    A run's notice without text means that nothing is left to say.
    """
    row = conn.execute(OF_CONNECTION, (account,)).fetchone()
    found = read(conn, account, NOTICE, Notice)
    text: str | None = found.text if found is not None else row[0] if row is not None else None
    return (sanitize(text) or "")[:MAX_NOTICE_CHARS] or None
