"""Format numbers, sizes, durations and ages, for the terminal and for the dashboard alike.

Every function accepts None for an unknown value. No function returns an empty string or a negative
number. Sizes are in binary units, like the limits in the settings and the documentation.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

UNKNOWN = "\N{EN DASH}"
"""The text for an unknown value."""

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SPAN_UNITS = (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1))


def number(value: float | None) -> str:
    """Format a count or a rate: `1,234,567`; a fraction below 10 has one decimal."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    shown = max(0, value)
    if isinstance(shown, int) or shown == 0 or shown >= 9.95:
        return f"{shown:,.0f}"
    return f"{shown:.1f}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Format a number with its noun: `1 item`, `1,234 items`; the default plural adds an s."""
    return f"{number(count)} {noun if count == 1 else plural or noun + 's'}"


def size(count: int | None) -> str:
    """Format a number of bytes: `999 B`, `1.5 KiB`, `118 MiB`."""
    if count is None:
        return UNKNOWN
    amount, unit = float(max(0, count)), 0
    # A size that rounds to 1024 of a unit is shown as 1.0 of the next unit.
    while round(amount) >= 1_024 and unit < len(_BYTE_UNITS) - 1:
        amount, unit = amount / 1_024, unit + 1
    decimals = 1 if unit and amount < 99.95 else 0
    return f"{amount:,.{decimals}f} {_BYTE_UNITS[unit]}"


def span(seconds: float | None) -> str:
    """Format a duration in its two largest units: `1.5 s`, `1 min 5 s`, `1 h 5 min`, `2 d 3 h`."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    rounded = round(seconds)
    for unit, length, smaller, part in _SPAN_UNITS:
        if rounded >= length:
            rest = rounded % length // part
            return f"{rounded // length} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{rounded} s"


def ago(at: datetime | None, now: datetime | None = None) -> str:
    """Format the distance of a time from now: `3 min ago`, `in 20 s`; None: `never`.

    It shows only the largest unit, and seconds in steps of ten, so that a live page seldom changes.
    """
    if at is None:
        return "never"
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    shown = _coarse(abs(seconds))
    if shown is None:
        return "just now" if seconds >= 0 else "in a moment"
    return f"{shown} ago" if seconds > 0 else f"in {shown}"


def _coarse(seconds: float) -> str | None:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:,.0f} {unit}"
    return f"{seconds // 10 * 10:.0f} s" if seconds >= 10 else None


def moment(at: datetime | None) -> str:
    """Format a time in UTC, to the second."""
    return UNKNOWN if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
