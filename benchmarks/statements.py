"""The names of the engine's statements that PostgreSQL shows and logs."""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path

import core.accounts
import core.content
import core.ledger
import core.service

# One entry of the log; PostgreSQL indents the further lines of a statement.
SLOW = re.compile(
    r"LOG:  duration: ([\d.]+) ms  (?:statement|(?:parse|bind|execute) [^:]*): (.*(?:\n\t.*)*)"
)


def log_of(home: Path) -> str:
    """Return the log of the embedded PostgreSQL in a folder."""
    logs = sorted(
        (home / "embedded" / "postgres" / "log").glob("postgres-*.log"),
        key=lambda log: log.stat().st_mtime,
    )
    return "".join(log.read_text("utf-8", "replace") for log in logs)


def slow(log: str) -> list[tuple[str, float]]:
    """Return the statements with a logged duration: their name, and the milliseconds."""
    return [(name(text.replace("\n\t", "\n")), float(ms)) for ms, text in SLOW.findall(log)]


@cache
def name(query: str) -> str:
    """Return the name of a statement: its module and its constant. PostgreSQL may cut its text."""
    shape = _shape(query)[:-10] if len(query) > 1000 else _shape(query)
    for known, found in _statements().items():
        if known == shape or (len(query) > 1000 and known.startswith(shape)):
            return found
    return " ".join(query.split())[:40]


@cache
def _statements() -> dict[str, str]:
    """Return the names of the engine's statements, by the text that PostgreSQL shows."""
    modules = [
        module.name
        for package in (core.content, core.ledger, core.service, core.accounts)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    return {
        _shape(text): f"{module.removeprefix('core.')}.{constant}"
        for module in modules
        for constant, text in vars(importlib.import_module(module)).items()
        if constant.isupper() and isinstance(text, str) and not constant.startswith("_")
    }


def _shape(text: str) -> str:
    """Return a statement without the names or numbers of its parameters."""
    return re.sub(r"%\(\w+\)s|%s|\$\d+", "?", text).replace("%%", "%").strip()
