"""Templates, and their filters for numbers and times."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from core.accounts import MAX_POLL_INTERVAL_MINUTES
from core.dashboard.wording import capital, sentence
from core.scopes import Scope
from core.search import snippets
from core.search.words import words
from core.service import formatting
from core.service.accounts.check import bound_sentence
from core.service.content.deletions import place_name
from core.service.fleet.liveness import OVERDUE_INTERVALS
from core.service.runs.queries import shown_run_state, shown_state
from core.states import (
    AccountState,
    AccountStateReason,
    Deletions,
    HeldState,
    HoldSource,
    Lane,
    RunState,
    TaskState,
)

_TICKED = re.compile(r"`([^`]+)`")


@cache
def environment() -> Environment:
    """Return the Jinja environment. All templates escape their values."""
    env = Environment(
        loader=PackageLoader("core.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "ago": formatting.ago,
        "span": formatting.span,
        "number": formatting.number,
        "counted": formatting.counted,
        "size": formatting.size,
        "moment": formatting.moment,
        "is_past": is_past,
        "pretty": pretty,
        "code": code,
        "bound_sentence": bound_sentence,
        "marked": marked,
        "capital": capital,
        "sentence": sentence,
        "host": host,
        "place_name": place_name,
        "task_state": shown_state,
        "run_state": shown_run_state,
    }
    env.globals["query"] = query
    env.globals["MAX_POLL_INTERVAL_MINUTES"] = MAX_POLL_INTERVAL_MINUTES
    env.globals["OVERDUE_INTERVALS"] = OVERDUE_INTERVALS
    enums = (
        AccountState,
        AccountStateReason,
        Deletions,
        HeldState,
        HoldSource,
        Lane,
        RunState,
        Scope,
        TaskState,
    )
    env.globals |= {enum.__name__: enum for enum in enums}
    return env


def marked(snippet: str, query: str) -> list[tuple[str, bool]]:
    """Return the parts of a snippet, each with True if it is a word of the query."""
    return list(snippets.marked(snippet, [word.folded for word in words(query)]))


def page(name: str, values: Mapping[str, Any]) -> str:
    """Render a complete page."""
    return environment().get_template(name).render(values)


def live_part(name: str, values: Mapping[str, Any]) -> str:
    """Render the live part of a page: its block `live`."""
    template = environment().get_template(name)
    return "".join(template.blocks["live"](template.new_context(dict(values))))


def query(**values: object) -> str:
    """Return a query string without None and empty values."""
    params = {name: value for name, value in values.items() if value not in (None, "")}
    return f"?{urlencode(params)}" if params else ""


def code(text: str) -> Markup:
    """Escape a text, and show its parts between backticks as code."""
    return Markup(_TICKED.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704


def host(url: str) -> str:
    """Return the host of a URL."""
    return urlsplit(url).hostname or url


def is_past(at: datetime) -> bool:
    """Return True if a time has passed."""
    return at <= datetime.now(UTC)


def pretty(value: object) -> str:
    """Return indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
