"""Slack's message timestamps, which are unique only within a channel.

They are text, because `1.000010` is not `1.00001`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeGuard

EARLIEST = "0"
LATEST = "9999999999.999999"
"""An upper bound above all messages: the last moment that Slack's format can express."""

_TS = re.compile(r"[0-9]{1,10}\.[0-9]{1,6}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def is_ts(value: object) -> TypeGuard[str]:
    """Return True if the value is the timestamp of a message."""
    return isinstance(value, str) and _TS.fullmatch(value) is not None


def order(ts: str) -> tuple[int, int]:
    """Return a key for comparisons: seconds and microseconds."""
    seconds, _, micros = ts.partition(".")
    return int(seconds), int(micros.ljust(6, "0"))


def oldest(values: Iterable[str]) -> str:
    """Return the oldest of the timestamps, or an empty text. Empty texts are ignored."""
    return min(filter(None, values), key=order, default="")


def newest(values: Iterable[str]) -> str:
    """Return the newest of the timestamps, or an empty text. Empty texts are ignored."""
    return max(filter(None, values), key=order, default="")


def moment(ts: str) -> datetime:
    """Return the exact time of a timestamp."""
    seconds, micros = order(ts)
    return _EPOCH + timedelta(seconds=seconds, microseconds=micros)


def after(ts: str) -> datetime:
    """Return the first time above an exclusive lower bound."""
    return moment(ts) + _MICROSECOND


def above(ts: str) -> str:
    """Return the exclusive upper bound that includes this timestamp."""
    return before(moment(ts) + 2 * _MICROSECOND)


def before(time: datetime) -> str:
    """Return the exclusive lower bound that includes this time and later ones."""
    past = time - _MICROSECOND - _EPOCH
    if past < timedelta():
        return EARLIEST
    return f"{past.days * 86_400 + past.seconds}.{past.microseconds:06d}"
