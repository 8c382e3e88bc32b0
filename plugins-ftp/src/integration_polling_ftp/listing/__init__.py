"""Listings of any server: the dialect is found by a vote, and every line has a result.

`parse_listing` reads LIST, and `parse_facts` reads MLSD and MLST. The dialects follow the public
test lines of lftp, FileZilla, Apache Commons Net and ftpparse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, islice

from integration_polling_ftp.listing.dates import Clock
from integration_polling_ftp.listing.dos import parse_dos, parse_os2, parse_vxworks
from integration_polling_ftp.listing.entry import IGNORED, Entry, Kind, timestamp
from integration_polling_ftp.listing.facts import parse_eplf, parse_facts
from integration_polling_ftp.listing.hosts import (
    parse_as400,
    parse_member,
    parse_mvs,
    parse_vms,
    parse_zvm,
)
from integration_polling_ftp.listing.lines import unjoined
from integration_polling_ftp.listing.others import parse_other
from integration_polling_ftp.listing.summary import heads_members, is_summary
from integration_polling_ftp.listing.unix import parse_unix

__all__ = [
    "Entry",
    "Kind",
    "Listing",
    "Unreadable",
    "parse_facts",
    "parse_line",
    "parse_listing",
    "read_facts",
    "read_lines",
    "timestamp",
]

MAX_LINE = 4096
"""The maximum length of a line in bytes. File systems allow names of 255 characters."""

SHOWN = 200
"""The number of bytes that are kept of an unreadable line."""

VOTERS = 1000
"""The number of lines that vote."""

Parser = Callable[[str, Clock], Entry | None]


def _mlsd(line: str, _clock: Clock) -> Entry | None:
    return parse_facts(line)


DIALECTS: dict[str, Parser] = {
    "unix": parse_unix,
    "dos": parse_dos,
    "eplf": parse_eplf,
    "mlsd": _mlsd,
    "os2": parse_os2,
    "vms": parse_vms,
    "as400": parse_as400,
    "mvs": parse_mvs,
    "vxworks": parse_vxworks,
    "zvm": parse_zvm,
    "other": parse_other,
}
_DATE = re.compile(r"(?<![\d/.-])(\d{1,2})([-/])(\d{1,2})\2(?:\d\d|\d{4})(?![\d/.-])", re.ASCII)
_VERSION = re.compile(r"[^ ].*;\d{1,5}[ ]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that no dialect reads.

    Attributes:
      line: The first 200 bytes of the line, decoded as latin-1.
    """

    line: str


@dataclass(slots=True)
class Listing:
    """A listing.

    Attributes:
      entries: The entries in the server's order, without headings and summaries.
      unreadable: The lines that no dialect reads, each cut to 200 bytes. A listing is complete only
        if there is none.
    """

    entries: list[Entry] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def parse_listing(
    lines: Iterable[bytes | str], *, now: datetime, encoding: str = "utf-8"
) -> Listing:
    """Parse a listing. For listings of any length, use `read_lines`.

    Args:
      lines: The lines of LIST; text is decoded as latin-1.
      now: The server's time, for times without a year.
      encoding: The charset of the names. Default: `utf-8`.
    """
    listing = Listing()
    for result in read_lines(lines, now=now, encoding=encoding):
        if isinstance(result, Unreadable):
            listing.unreadable.append(result.line)
        else:
            listing.entries.append(result)
    return listing


def read_lines(
    lines: Iterable[bytes | str],
    *,
    now: datetime,
    encoding: str = "utf-8",
    voted: Callable[[str], None] = lambda _: None,
) -> Iterator[Entry | Unreadable]:
    """Yield the entries of a listing.

    The first 1,000 lines vote on the dialect, and on the order of day and month. Lines that the
    winner cannot read go to the other dialects.

    Args:
      lines: The lines of LIST; text is decoded as latin-1.
      now: The server's time, for times without a year.
      encoding: The charset of the names. Default: `utf-8`.
      voted: Receives the name of the dialect. Default: nothing does.
    """
    source = map(_text, lines)
    voters = list(islice(source, VOTERS))
    clock = Clock(now, _is_day_first(voters))
    winners = _vote(voters, clock)
    order = [DIALECTS[name] for name in winners]
    if voters:
        voted(winners[0])
    members, is_first = False, True

    def is_entry(line: str) -> bool:
        result = _read(line, clock, order, members, is_first)
        return isinstance(result, Entry) and result is not IGNORED

    whole = (part for line in chain(voters, source) for part in unjoined(line, is_entry))
    for line in _joined(whole, is_entry):
        members = members or heads_members(line)
        result = _read(line, clock, order, members, is_first)
        is_first = is_first and not line.strip(" \t\r")
        if result is not IGNORED:
            yield _encoded(result, encoding)


def read_facts(
    lines: Iterable[bytes | str], *, encoding: str = "utf-8"
) -> Iterator[Entry | Unreadable]:
    """Yield the entries of a listing of MLSD.

    Args:
      lines: The lines of MLSD; text is decoded as latin-1.
      encoding: The charset of the names. Default: `utf-8`.
    """
    whole = (part for line in map(_text, lines) for part in unjoined(line, _has_facts))
    for line in whole:
        if line.strip(" \t"):
            entry = parse_facts(line) if len(line) <= MAX_LINE else None
            yield _encoded(entry or Unreadable(line[:SHOWN]), encoding)


def _has_facts(line: str) -> bool:
    return parse_facts(line) is not None


def _encoded(result: Entry | Unreadable, encoding: str) -> Entry | Unreadable:
    if encoding == "utf-8" or isinstance(result, Unreadable):
        return result
    return replace(result, encoding=encoding)


def parse_line(line: str, now: datetime) -> Entry | None:
    """Parse one line of LIST, without a vote.

    Args:
      line: The line, decoded as latin-1.
      now: The server's time, for times without a year.

    Returns:
      The entry; one of the kind `other` and without a name for devices, headings and summaries;
      None if no dialect reads the line.
    """
    result = _read(_text(line), Clock(now), list(DIALECTS.values()), False, True)
    return None if isinstance(result, Unreadable) else result


def _text(line: bytes | str) -> str:
    return (line if isinstance(line, str) else line.decode("latin-1")).removesuffix("\r")


def _read(
    line: str, clock: Clock, order: list[Parser], members: bool, is_first: bool
) -> Entry | Unreadable:
    if len(line) > MAX_LINE:
        return Unreadable(line[:SHOWN])
    for parser in order:
        if entry := _attempt(parser, line, clock):
            return entry
    if is_summary(line, is_first):
        return IGNORED
    if members and (entry := parse_member(line, clock)):
        return entry
    return Unreadable(line[:SHOWN])


def _attempt(parser: Parser, line: str, clock: Clock) -> Entry | None:
    try:
        return parser(line, clock)
    except (ValueError, OverflowError):
        return None


def _vote(lines: list[str], clock: Clock) -> list[str]:
    """Return the names of the dialects, the one that reads the most lines first.

    If the first dialect reads every line, none can read more, and the others keep their order.
    """
    usable = [line for line in lines if len(line) <= MAX_LINE]
    votes = dict.fromkeys(DIALECTS, 0)
    for name, parser in DIALECTS.items():
        votes[name] = sum(_attempt(parser, line, clock) is not None for line in usable)
        if votes[name] == len(usable):
            break
    return sorted(DIALECTS, key=lambda name: -votes[name])


def _is_day_first(lines: list[str]) -> bool:
    """Return True if numeric dates prove that the day comes first, and none that it does not."""
    dates = [match for line in lines if (match := _DATE.search(line[:MAX_LINE]))]
    return any(int(date[1]) > 12 for date in dates) and all(int(date[3]) <= 12 for date in dates)


def _joined(lines: Iterator[str], is_entry: Callable[[str], bool]) -> Iterator[str]:
    """Join the two lines of a long name in VMS: the name stands on a line of its own.

    The name of a file on another system may end like that of VMS.
    """
    held = ""
    for line in lines:
        if held:
            yield f"{held} {line.lstrip(' ')}"
            held = ""
        elif _VERSION.fullmatch(line[:MAX_LINE]) and not is_entry(line):
            held = line.rstrip(" ")
        else:
            yield line
    if held:
        yield held
