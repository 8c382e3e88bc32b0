"""Times in requests: exactly those of RFC 3339, section 5.6, with an offset."""

from __future__ import annotations

import re
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

SHAPE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

EXAMPLE = "2026-05-01T12:00:00Z"

# The time zone of a database may be ahead. Python could not read a time of the year 10000.
EARLIEST = datetime(MINYEAR + 1, 1, 1, tzinfo=UTC)
LATEST = datetime(MAXYEAR - 1, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


def _strict(value: Any) -> datetime:
    """Return a time. Pydantic would also take a date, a number of seconds, or no offset."""
    if isinstance(value, str) and SHAPE.fullmatch(value):
        try:
            return _within(datetime.fromisoformat(value.upper()))
        except ValueError:
            pass  # such as the 30th of February
    raise PydanticCustomError("timestamp", "must be a time with an offset, such as " + EXAMPLE)


def _within(time: datetime) -> datetime:
    """Return a time between `EARLIEST` and `LATEST`. The data have no other times."""
    if time.year <= MINYEAR:
        return EARLIEST
    return LATEST if time.year >= MAXYEAR else min(max(time.astimezone(UTC), EARLIEST), LATEST)


def _stored(time: datetime) -> datetime:
    if EARLIEST < time < LATEST:
        return time
    raise PydanticCustomError("timestamp", "must be between the years 2 and 9998")


Timestamp = Annotated[datetime, BeforeValidator(_strict)]
"""A time with an offset, such as `2026-05-01T12:00:00Z`. It is in the years 0002 to 9998.

An earlier or later time becomes the first or the last one. As a filter, it selects the same rows.
"""

StoredTimestamp = Annotated[Timestamp, AfterValidator(_stored)]
"""A time with an offset that is stored. An earlier or later one is refused."""
