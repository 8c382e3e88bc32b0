"""Dates in messages, as Slack formats them. Slack uses the reader's time zone; here it is UTC.

Source: https://docs.slack.dev/messaging/formatting-message-text#date-formatting
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_TOKEN = re.compile(r"\{([a-z_]+)\}")
_RELATIVE = re.compile(r"\{(ago|[a-z_]+_pretty)\}")
_ENDINGS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}


def shown(timestamp: object, pattern: str, fallback: str) -> str:
    """Return the words that a person sees in place of a date.

    Slack shows the fallback only if it cannot format the date. Relative words, such as `yesterday`,
    depend on the day of reading, so the fallback stands for them too.
    """
    if fallback and _RELATIVE.search(pattern):
        return fallback
    return formatted(timestamp, pattern) or fallback


def formatted(timestamp: object, pattern: str) -> str:
    """Return a time in Slack's format, such as `Posted {date_num} {time}`; empty if it is none."""
    try:
        moment = datetime.fromtimestamp(float(str(timestamp)), UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return _TOKEN.sub(lambda found: _part(moment, found[1]) or found[0], pattern)


def _part(moment: datetime, token: str) -> str:
    """Return one part of a format. Relative words, such as `yesterday`, are dates here."""
    kind = token.removesuffix("_pretty")
    day, clock = moment.day, f"{moment.hour % 12 or 12}{moment:%M}"
    ordinal = f"{moment:%B} {day}{_ENDINGS.get(day, 'th')}, {moment.year}"
    clock = f"{clock[:-2]}:{clock[-2:]}"
    return {
        "date_num": f"{moment:%Y-%m-%d}",
        "date_slash": f"{moment:%m/%d/%Y}",
        "date_short": f"{moment:%b} {day}, {moment.year}",
        "date_short_half": f"{moment:%b} {day}, {moment.year}",
        "date": ordinal,
        "ago": ordinal,
        "day_divider": f"{moment:%A}, {ordinal}",
        "date_long": f"{moment:%A}, {ordinal}",
        "date_long_full": ordinal,
        "time": f"{clock} {moment:%p}",
        "time_secs": f"{clock}:{moment:%S} {moment:%p}",
    }.get(kind, "")
