"""The names of the engine's statements that PostgreSQL shows and logs."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
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
    shape = re.sub(r"\$\d+", "?", query).strip()
    cut = shape[:-10] if len(query) > 1000 else None
    for known, found in _statements().items():
        if known == shape or (cut is not None and known.startswith(cut)):
            return found
    return " ".join(query.split())[:40]


@cache
def _statements() -> dict[str, str]:
    """Return the names of the engine's statements, by their text without names of parameters."""
    modules = [
        module.name
        for package in (core.content, core.ledger, core.service, core.accounts)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    return {
        _shape(text): f"{module.removeprefix('core.')}.{constant}"
        for module in modules
        for constant, value in vars(importlib.import_module(module)).items()
        if constant.isupper() and not constant.startswith("_")
        for text in (value.values() if isinstance(value, Mapping) else (value,))
        if isinstance(text, str)
    }


def _shape(text: str) -> str:
    return re.sub(
        r"%(?:%|s|\(\w+\)s)", lambda match: "%" if match[0] == "%%" else "?", text
    ).strip()
