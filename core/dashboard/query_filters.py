"""The filters of a listing, as query parameters of a page."""

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
"""A field of a filter form; empty if the filter is not set."""


def find_account(conn: Conn, viewer: Viewer, text: str) -> UUID | None:
    """Return the account with this name or ID; None if the text is empty.

    Raises:
      NotFound: The viewer can see no such account.
      InvalidInput: The viewer can see several such accounts.
    """
    return lookup.account_of(conn, viewer.user_id, text.strip()) if text.strip() else None


def parse_day(text: str, offset_days: int = 0) -> datetime | None:
    """Return midnight, in UTC, of a day; None if the text is empty.

    Args:
      text: The day as browsers send it, such as `2026-01-31`.
      offset_days: The number of days to add.

    Raises:
      InvalidInput: The text is not a valid day.
    """
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=offset_days)
    except (ValueError, OverflowError):
        raise InvalidInput("day-invalid", text=text[:20]) from None


def domains(engine: Backend, selected: str) -> list[str]:
    """Return the domains of the installed integrations, and the selected domain."""
    return sorted({*engine.registry.integrations, *([selected] if selected else [])})
