"""The catalogue of errors: an HTTP status, a message and a next step for each code.

This package is data and imports no other part of the engine. An error carries a code and fields
(`core.errors`), and fills them into the texts of this catalogue. `docs/reference/errors.md` is
generated from it.
"""

from __future__ import annotations

from core.error_catalog import (
    accounts,
    advice,
    commands,
    lookups,
    requests,
    servers,
    subscriptions,
)
from core.error_catalog.entry import Catalog, Entry, Steps, Surface

__all__ = ["ADVICE", "CATALOG", "PARTS", "Catalog", "Entry", "Steps", "Surface"]

PARTS: dict[str, Catalog] = {
    "Accounts": accounts.ENTRIES,
    "Runs, tasks and content": lookups.ENTRIES,
    "Servers and settings": servers.ENTRIES,
    "Subscriptions": subscriptions.ENTRIES,
    "Requests": requests.ENTRIES,
    "Commands": commands.ENTRIES,
}
"""The entries, by their heading in the reference."""

CATALOG: Catalog = {code: entry for part in PARTS.values() for code, entry in part.items()}
"""All errors, by their code."""

ADVICE = advice.STEPS
"""Next steps for findings that are not errors, such as results of `polling doctor`, by code."""
