"""Times in requests: exactly those of RFC 3339, section 5.6, with an offset."""

from __future__ import annotations

import re
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

SHAPE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

EXAMPLE = "2026-05-01T12:00:00Z"


def _strict(value: Any) -> datetime:
    """Return a time. Pydantic would also take a date, a number of seconds, or no offset."""
    if isinstance(value, str) and SHAPE.fullmatch(value):
        try:
            time = datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # such as the 30th of February
        else:
            if MINYEAR < time.year < MAXYEAR:
                return time
    raise PydanticCustomError("timestamp", "must be a time with an offset, such as " + EXAMPLE)


Timestamp = Annotated[datetime, BeforeValidator(_strict)]
"""A time with an offset, such as `2026-05-01T12:00:00Z`. Years are 0002 to 9998.

The time zone of a database may be ahead. Python could not read a time of the year 10000.
"""
