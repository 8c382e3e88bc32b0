"""Times that people type."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from core.errors import InvalidInput
from core.service import times

A_MOMENT = timedelta(seconds=5)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90s", timedelta(seconds=90)),
        ("5min", timedelta(minutes=5)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        (" 3 d", timedelta(days=3)),
        ("1w", timedelta(weeks=1)),
    ],
)
def test_a_span_counts_from_now(text: str, span: timedelta) -> None:
    assert abs(datetime.now(UTC) - span - times.past(text)) < A_MOMENT
    assert abs(datetime.now(UTC) + span - times.future(text)) < A_MOMENT


def test_a_time_without_an_offset_is_in_utc() -> None:
    assert times.past("2026-01-31T08:00") == datetime(2026, 1, 31, 8, tzinfo=UTC)
    assert times.past("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert times.past("2026-01-31T08:00+02:00") == datetime(2026, 1, 31, 6, tzinfo=UTC)
    assert times.past("2026-01-31T08:00Z") == datetime(2026, 1, 31, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "soon", "2x", "-2h", "99999999d", "999999w", "2026-13-01", "1" * 400]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        times.past(text)
