"""Parts of Gmail's answers that several tasks read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from core import TransientError


def is_over(since: datetime | None, span: timedelta) -> bool:
    """Return True if this time has passed, or the moment is unknown or in the future."""
    return since is None or not timedelta() <= datetime.now(UTC) - since < span


def next_page(answer: Mapping[str, Any], page: str | None) -> str | None:
    """Return the token of the next page.

    Only a missing token marks the last page, because any page may be empty.
    """
    token = answer.get("nextPageToken")
    if token is not None and token == page:
        raise TransientError("unexpected response from Gmail: the next page is the same page")
    if token is not None and not isinstance(token, str):
        raise TransientError("unexpected response from Gmail: nextPageToken is not a string")
    return token or None


def message_id(entry: Mapping[str, Any]) -> str:
    """Return the id of a message in a listing."""
    id = entry.get("id")
    if not isinstance(id, str) or not id:
        raise TransientError("unexpected response from Gmail: a message without an id")
    return id
