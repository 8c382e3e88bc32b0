"""Dates in messages, as Slack formats them.

Slack uses the reader's time zone. Here it is UTC, unless the date names a time zone.

Source: https://docs.slack.dev/messaging/formatting-message-text#date-formatting
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_TOKEN = re.compile(r"\{([a-z_]+)\}")
_RELATIVE = re.compile(r"\{(ago|[a-z_]+_pretty)\}")
_ANY = datetime(2020, 1, 1, tzinfo=UTC)
_ENDINGS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}


def shown(timestamp: object, pattern: str, fallback: str, zone: object = None) -> str:
    """Return the words that a person sees in place of a date.

    Slack shows the fallback only if it cannot format the date: an unknown token is also used to
    escape text. Relative words, such as `yesterday`, depend on the day of reading, so the fallback
    stands for them too.
    """
    if fallback and (_RELATIVE.search(pattern) or not _is_known(pattern)):
        return fallback
    return formatted(timestamp, pattern, zone) or fallback


def formatted(timestamp: object, pattern: str, zone: object = None) -> str:
    """Return a time in Slack's format, such as `Posted {date_num} {time}`; empty if it is none.

    Args:
      timestamp: The time, in Unix seconds.
      pattern: The format.
      zone: The name of a time zone. Default: UTC, also if the name is unknown.
    """
    try:
        moment = datetime.fromtimestamp(float(str(timestamp)), _zone(zone))
    except (ValueError, OverflowError, OSError):
        return ""
    return _TOKEN.sub(lambda found: _part(moment, found[1]) or found[0], pattern)


def _zone(name: object) -> tzinfo:
    try:
        return ZoneInfo(name) if isinstance(name, str) and name else UTC
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return UTC


def _is_known(pattern: str) -> bool:
    """Return True if all tokens of a format are Slack's."""
    return all(_part(_ANY, found[1]) for found in _TOKEN.finditer(pattern))


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
