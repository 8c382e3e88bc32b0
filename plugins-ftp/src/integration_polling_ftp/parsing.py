"""The parsers of complete listings, on top of the parsers of lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from integration_polling_ftp.listing import Entry, parse_facts, parse_line


@dataclass(slots=True)
class Listing:
    """A parsed listing: its entries, and the lines that cannot be read."""

    entries: list[Entry] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def parse_mlsd(lines: Iterable[bytes]) -> Listing:
    """Parse the lines of MLSD (RFC 3659, section 7)."""
    found = Listing()
    for line in lines:
        text = line.decode("latin-1")
        _add(found, text, parse_facts(text))
    return found


def parse_listing(lines: Iterable[bytes], *, now: datetime) -> Listing:
    """Parse the lines of LIST; `now` is for times without a year."""
    found = Listing()
    for line in lines:
        text = line.decode("latin-1")
        if text.strip() and not text.startswith("total "):
            _add(found, text, parse_line(text, now))
    return found


def _add(found: Listing, line: str, entry: Entry | None) -> None:
    if entry is not None:
        found.entries.append(entry)
    else:
        found.unreadable.append(line[:200])
