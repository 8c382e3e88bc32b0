"""Slack's message timestamps, unique only within a channel.

They are text, because `1.000010` is not `1.00001`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

EARLIEST = "0"

_TS = re.compile(r"[0-9]{1,10}\.[0-9]{1,6}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def is_ts(value: object) -> bool:
    """Whether this is a message's timestamp."""
    return isinstance(value, str) and _TS.fullmatch(value) is not None


def order(ts: str) -> tuple[int, int]:
    """To compare them by: whole seconds and microseconds."""
    seconds, _, micros = ts.partition(".")
    return int(seconds), int(micros.ljust(6, "0"))


def oldest(values: Iterable[str]) -> str:
    """The oldest of those given; empty text if there is none. Empty texts do not count."""
    return min(filter(None, values), key=order, default="")


def newest(values: Iterable[str]) -> str:
    """The newest of those given; empty text if there is none. Empty texts do not count."""
    return max(filter(None, values), key=order, default="")


def moment(ts: str) -> datetime:
    """The moment it names, exactly."""
    seconds, micros = order(ts)
    return _EPOCH + timedelta(seconds=seconds, microseconds=micros)


def after(ts: str) -> datetime:
    """The first moment that an exclusive lower bound lets in."""
    return moment(ts) + _MICROSECOND


def above(ts: str) -> str:
    """The exclusive upper bound that lets this one in."""
    return before(moment(ts) + 2 * _MICROSECOND)


def before(time: datetime) -> str:
    """The exclusive lower bound that lets in this moment and all later ones."""
    past = time - _MICROSECOND - _EPOCH
    if past < timedelta():
        return EARLIEST
    return f"{past.days * 86_400 + past.seconds}.{past.microseconds:06d}"
