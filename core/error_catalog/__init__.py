"""The catalogue of errors: for each code an HTTP status, one message, and the next step.

This package is data. It imports nothing of the engine. An error carries a code and fields
(`core.errors`), and a surface asks the error for its words. `docs/reference/errors.md` is generated
from this catalogue.
"""

from __future__ import annotations

from core.error_catalog import accounts, advice, commands, lookups, requests, servers
from core.error_catalog.entry import Catalog, Entry, Steps, Surface

__all__ = ["ADVICE", "CATALOG", "PARTS", "Catalog", "Entry", "Steps", "Surface"]

PARTS: dict[str, Catalog] = {
    "Accounts": accounts.ENTRIES,
    "Runs, tasks and content": lookups.ENTRIES,
    "Servers and settings": servers.ENTRIES,
    "Requests": requests.ENTRIES,
    "Commands": commands.ENTRIES,
}
"""The entries by the headings of the reference."""

CATALOG: Catalog = {code: entry for part in PARTS.values() for code, entry in part.items()}
"""Every error, by its code."""

ADVICE = advice.STEPS
"""Next steps for findings that are not errors, such as those of `doctor`, by their code."""
