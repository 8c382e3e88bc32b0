"""Plots, as what a template needs to draw them in SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

MINUTES = 60
HEIGHT = 100.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute; lengths in the units of the drawing."""

    x: int
    height: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The last hour, minute by minute.

    Attributes:
      most: Of the highest bar, a second.
      total: Of all of them.
    """

    title: str
    bars: Sequence[Bar]
    most: float
    total: int
    begins: datetime
    ends: datetime


def last_hour(title: str, counted: dict[datetime, int], now: datetime) -> Chart:
    """A bar for each minute up to now.

    Parameters:
      counted: How much by minute; none where nothing happened.
      now: The minute that is not over counts by the seconds that are.
    """
    this = now.replace(second=0, microsecond=0)
    minutes = [this - timedelta(minutes=MINUTES - 1 - index) for index in range(MINUTES)]
    rates = [
        counted.get(minute, 0) / (60 if minute != this else max((now - this).total_seconds(), 5))
        for minute in minutes
    ]
    most = max(rates)
    bars = [
        Bar(
            index,
            round(HEIGHT * rate / most, 1) if most else 0.0,
            f"{minute:%H:%M} UTC: {rate:,.1f}/s",
        )
        for index, (minute, rate) in enumerate(zip(minutes, rates, strict=True))
    ]
    return Chart(
        title, bars, most, sum(counted.get(minute, 0) for minute in minutes), minutes[0], now
    )
