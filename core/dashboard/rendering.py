"""Templates, and how they show numbers and times."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from core.states import AccountState, AccountStateReason, Lane, RunState, TaskState

NOTHING = "\N{EN DASH}"
BYTES = ("bytes", "kB", "MB", "GB", "TB")


@cache
def environment() -> Environment:
    """All templates escape what they are given."""
    made = Environment(
        loader=PackageLoader("core.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ago": ago,
        "duration": duration,
        "number": number,
        "size": size,
        "moment": moment,
        "past": past,
        "pretty": pretty,
    }
    made.globals["query"] = query
    words = (AccountState, AccountStateReason, Lane, RunState, TaskState)
    made.globals |= {word.__name__: word for word in words}
    return made


def page(name: str, values: Mapping[str, Any]) -> str:
    """A whole page."""
    return environment().get_template(name).render(values)


def live_part(name: str, values: Mapping[str, Any]) -> str:
    """The part of a page that changes by itself: its block `live`."""
    template = environment().get_template(name)
    return "".join(template.blocks["live"](template.new_context(dict(values))))


def query(**values: object) -> str:
    """A query string of what is given; None and the empty text are left out."""
    given = {name: value for name, value in values.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else ""


def number(value: float | None) -> str:
    """1234567 as 1,234,567."""
    if value is None:
        return NOTHING
    return (
        f"{value:,.0f}" if isinstance(value, int) or value >= 10 or value == 0 else f"{value:,.1f}"
    )


def size(value: int | None) -> str:
    """Bytes, for people."""
    if value is None:
        return NOTHING
    shown = float(value)
    for unit in BYTES:
        if shown < 1_000 or unit == BYTES[-1]:
            break
        shown /= 1_000
    return f"{shown:,.0f} {unit}" if unit == "bytes" or shown >= 10 else f"{shown:,.1f} {unit}"


def duration(seconds: float | None) -> str:
    """How long, in its two largest units."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for unit, length, below in (("d", 86_400, "h"), ("h", 3_600, "min"), ("min", 60, "s")):
        if whole >= length:
            rest = whole % length // {"h": 3_600, "min": 60, "s": 1}[below]
            return (
                f"{whole // length} {unit} {rest} {below}" if rest else f"{whole // length} {unit}"
            )
    return f"{whole} s"


def ago(at: datetime | None) -> str:
    """How long ago, or how soon; so coarse that it seldom changes."""
    if at is None:
        return "never"
    seconds = (datetime.now(UTC) - at).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= length:
            count = int(abs(seconds) // length)
            return f"{count} {unit} ago" if seconds > 0 else f"in {count} {unit}"
    return "just now" if seconds >= 0 else "in a moment"


def past(at: datetime) -> bool:
    """Whether it is over."""
    return at <= datetime.now(UTC)


def pretty(value: object) -> str:
    """JSON, for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)


def moment(at: datetime | None) -> str:
    """A time to the second, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at is not None else NOTHING
