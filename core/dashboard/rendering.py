"""Templates, and how they show numbers and times."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from core.service import formatting
from core.states import AccountState, AccountStateReason, Lane, RunState, TaskState


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
        "ago": formatting.ago,
        "span": formatting.span,
        "number": formatting.number,
        "size": formatting.size,
        "moment": formatting.moment,
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


def past(at: datetime) -> bool:
    """Whether it is over."""
    return at <= datetime.now(UTC)


def pretty(value: object) -> str:
    """JSON, for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
