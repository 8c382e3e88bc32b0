"""What a listing is narrowed to, as it stands in a page's address."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Query

from core.dashboard.session import Viewer
from core.db.pool import Conn
from core.errors import InvalidInput
from core.service import lookup
from core.service.backend import Backend
from core.web.dependencies import NO_NUL

Text = Annotated[str, Query(max_length=1_000, pattern=NO_NUL)]
"""A field of a filter form; empty if nothing was given."""


def find_account(conn: Conn, viewer: Viewer, text: str) -> UUID | None:
    """The account that was typed, by its name or id; None if nothing was.

    Raises:
      NotFound, InvalidInput: The viewer sees none of it, or several.
    """
    return lookup.account_of(conn, viewer.user_id, text.strip()) if text.strip() else None


def parse_day(text: str, offset_days: int = 0) -> datetime | None:
    """Midnight, in UTC, of a day as browsers send it; None if nothing was given.

    Parameters:
      later: So many days after it.

    Raises:
      InvalidInput: It is no day.
    """
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=offset_days)
    except (ValueError, OverflowError):
        raise InvalidInput("day-invalid", text=text[:20]) from None


def domains(engine: Backend, selected: str) -> list[str]:
    """What integrations there are to choose from."""
    return sorted({*engine.registry.integrations, *([selected] if selected else [])})
