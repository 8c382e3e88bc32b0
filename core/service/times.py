"""Read times that people type: a time in ISO 8601, or a span such as `2h`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from core.errors import InvalidInput

MAX_CHARS = 40
"""The longest text that is read as a time."""

_SPAN = re.compile(r"(\d{1,6})\s*(s|min|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def past(text: str) -> datetime:
    """Return a time in the past: `2h` means two hours ago.

    Raises:
      InvalidInput: The text is neither a time nor a span.
    """
    return _read(text, -1)


def future(text: str) -> datetime:
    """Return a time in the future: `2h` means in two hours.

    Raises:
      InvalidInput: The text is neither a time nor a span.
    """
    return _read(text, 1)


def seconds(text: str) -> float:
    """Return the seconds of a span such as `2h`.

    Raises:
      InvalidInput: The text is not a span.
    """
    if match := _SPAN.fullmatch(text.strip()):
        return float(int(match[1]) * _SECONDS[match[2]])
    raise InvalidInput("span-invalid", text=text[:80])


def _read(text: str, direction: int) -> datetime:
    """Return a time. A time without an offset is in UTC."""
    try:
        if match := _SPAN.fullmatch(text.strip()):
            seconds = int(match[1]) * _SECONDS[match[2]]
            return datetime.now(UTC) + direction * timedelta(seconds=seconds)
        if len(text) > MAX_CHARS:
            raise ValueError
        at = datetime.fromisoformat(text.strip())
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput("time-invalid", text=text[:80]) from None
