"""Parsers for directory listings: MLSD facts (RFC 3659), Unix `ls -l`, and DOS or IIS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from integration_polling_ftp import names

Kind = Literal["file", "directory", "link", "other"]

_MLSD_KINDS: dict[str, Kind] = {
    "file": "file",
    "dir": "directory",
    "cdir": "other",
    "pdir": "other",
}
_UNIX_KINDS: dict[str, Kind] = {"-": "file", "d": "directory", "l": "link"}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_UNIX = re.compile(
    r"(?P<kind>[-bcdlpsD])[-rwxsStTlL]{9}[.+@]?\s+\d+\s+\S+\s+(?:\S+\s+)?(?P<size>\d+)\s+"
    r"(?P<month>[A-Za-z]{3})\s+(?P<day>\d{1,2})\s+"
    r"(?:(?P<hour>\d{1,2}):(?P<minute>\d\d)|(?P<year>\d{4})) (?P<name>.+)"
)
_DEVICE = re.compile(r"[bc][-rwxsStT]{9}")
_DOS = re.compile(
    r"(?P<month>\d\d)-(?P<day>\d\d)-(?P<year>\d\d(?:\d\d)?)\s+"
    r"(?P<hour>\d\d):(?P<minute>\d\d)(?P<half>[AP]M)?\s+"
    r"(?:<(?P<tag>[A-Z]+)>\s+|(?P<size>\d+) )(?P<name>.+)"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory.

    Attributes:
      name: The name's bytes, decoded as latin-1.
      kind: `file`, `directory`, `link`, or `other` for names to ignore.
      size: The size in bytes; None if the server does not give it.
      modified: The time of the last change in UTC: `YYYYMMDD`, with `HHMM` and `SS` as far as the
        server gives them. Default: empty.
      unique: The `unique` fact: a value that all names of the same file or directory share. None if
        the server does not give it.
    """

    name: str
    kind: Kind
    size: int | None = None
    modified: str = ""
    unique: str | None = None

    @property
    def version(self) -> str:
        """Size and time as `size:modified`: the fingerprint that decides about a download."""
        return f"{'' if self.size is None else self.size}:{self.modified}"

    @property
    def text(self) -> str:
        """The name as it is stored."""
        return names.to_text(self.name)


def is_same(known: str | None, listed: str) -> bool:
    """Return True if two versions are equal in the precision of the coarser one.

    LIST omits the time of day for old files.
    """
    if known is None:
        return False
    size, _, modified = known.partition(":")
    listed_size, _, listed_modified = listed.partition(":")
    digits = min(len(modified), len(listed_modified))
    if not digits:
        return known == listed
    return size == listed_size and modified[:digits] == listed_modified[:digits]


def timestamp(modified: str) -> datetime | None:
    """Return the time of a version in UTC; None if it is missing or invalid."""
    for form, length in (("%Y%m%d%H%M%S", 14), ("%Y%m%d%H%M", 12), ("%Y%m%d", 8)):
        if len(modified) >= length:
            try:
                return datetime.strptime(modified[:length], form).replace(tzinfo=UTC)
            except ValueError:
                return None
    return None


def parse_facts(line: str) -> Entry | None:
    """Parse a line of MLSD or MLST: facts, one space, the name (RFC 3659, section 7.2).

    Returns:
      The entry; None if the line has no type or no name.
    """
    facts, _, name = line.partition(" ")
    values = {
        key.lower(): value for key, _, value in (fact.partition("=") for fact in facts.split(";"))
    }
    if not name or "type" not in values:
        return None
    size = values.get("size", "")
    kind: Kind = _MLSD_KINDS.get(values["type"].lower(), "other")
    if values["type"].lower().startswith("os.unix=s"):
        kind = "link"
    return Entry(
        name,
        kind,
        int(size) if size.isdecimal() else None,
        values.get("modify", ""),
        values.get("unique"),
    )


def parse_line(line: str, now: datetime) -> Entry | None:
    """Parse a line of LIST.

    LIST does not name a time zone; its times are read as UTC.

    Args:
      line: The line, decoded as latin-1.
      now: The current time, for times without a year.

    Returns:
      The entry; None if the format is unknown.
    """
    if match := _UNIX.fullmatch(line):
        return _unix(match, now)
    if match := _DOS.fullmatch(line):
        return _dos(match)
    return Entry("", "other") if _DEVICE.match(line) else None


def _unix(match: re.Match[str], now: datetime) -> Entry | None:
    if match["month"].lower() not in _MONTHS:
        return None
    month, day = _MONTHS.index(match["month"].lower()) + 1, int(match["day"])
    if match["year"]:
        modified = f"{match['year']}{month:02}{day:02}"
    else:
        clock = f"{month:02}{day:02}{int(match['hour']):02}{match['minute']}"
        modified = f"{_year_of(clock, now)}{clock}"
    kind = _UNIX_KINDS.get(match["kind"], "other")
    name = match["name"].partition(" -> ")[0] if kind == "link" else match["name"]
    return Entry(name, kind, int(match["size"]), modified)


def _year_of(clock: str, now: datetime) -> int:
    """Return the latest year in which a time without a year is in the past.

    A time up to one day ahead counts as past, because of time zones.
    """
    latest = now + timedelta(days=1)
    return latest.year if clock <= f"{latest:%m%d%H%M}" else latest.year - 1


def _dos(match: re.Match[str]) -> Entry:
    year = (
        match["year"]
        if len(match["year"]) == 4
        else f"{20 if int(match['year']) < 70 else 19}{match['year']}"
    )
    hour = (
        int(match["hour"]) % 12 + (12 if match["half"] == "PM" else 0)
        if match["half"]
        else int(match["hour"])
    )
    modified = f"{year}{match['month']}{match['day']}{hour:02}{match['minute']}"
    if match["tag"]:
        return Entry(
            match["name"], "directory" if match["tag"] == "DIR" else "link", None, modified
        )
    return Entry(match["name"], "file", int(match["size"]), modified)
