"""Charts: the values that a template draws as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

MINUTES = 60
HEIGHT = 100.0


@dataclass(frozen=True, slots=True)
class Bar:
    """The bar of one minute. Lengths are in units of the SVG view box."""

    x: int
    height: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A bar chart of the last hour, with one bar per minute.

    Attributes:
      peak: The rate of the highest bar, per second.
      total: The sum of all counts.
    """

    title: str
    bars: Sequence[Bar]
    peak: float
    total: int
    starts_at: datetime
    ends_at: datetime


def last_hour(title: str, counts: dict[datetime, int], now: datetime) -> Chart:
    """Return a chart with a bar for each of the last 60 minutes.

    Args:
      title: The title of the chart.
      counts: Counts by minute. Minutes without events may be missing.
      now: The end of the chart. The current minute's rate counts only its elapsed seconds, at
        least 5.
    """
    current = now.replace(second=0, microsecond=0)
    minutes = [current - timedelta(minutes=MINUTES - 1 - index) for index in range(MINUTES)]
    rates = [
        counts.get(minute, 0)
        / (60 if minute != current else max((now - current).total_seconds(), 5))
        for minute in minutes
    ]
    peak = max(rates)
    bars = [
        Bar(
            index,
            round(HEIGHT * rate / peak, 1) if peak else 0.0,
            f"{minute:%H:%M} UTC: {rate:,.1f}/s",
        )
        for index, (minute, rate) in enumerate(zip(minutes, rates, strict=True))
    ]
    return Chart(
        title, bars, peak, sum(counts.get(minute, 0) for minute in minutes), minutes[0], now
    )
