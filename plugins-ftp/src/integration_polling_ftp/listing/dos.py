"""Listings of Windows, OS/2 and VxWorks servers."""

from __future__ import annotations

import re

from integration_polling_ftp.listing.dates import Clock, month_of
from integration_polling_ftp.listing.entry import Entry, Kind, size_of

_DOS = re.compile(
    r"[ ]{0,2}(?P<a>\d{1,4})(?P<mark>[-/.])(?P<b>\d{1,2})(?P=mark)(?P<c>\d{2,4})[ \t]+"
    r"(?P<time>\d{1,2}:\d\d(?::\d\d)?)[ ]?(?P<half>[APap]\.?[Mm]?\.?)?[ \t]+"
    r"(?:(?P<tag><[A-Za-z]+>)(?P<padded>.+)|(?P<size>\d[\d,.'\xa0]*)[ ](?P<name>.+))",
    re.ASCII | re.DOTALL,
)
_LINK_TAGS = ("JUNCTION", "SYMLINK", "SYMLINKD", "LINK")
_TARGET = re.compile(r" \[[^\]]*\]\Z|  ?-> .*\Z", re.DOTALL)
_COLUMNS, _WIDTH = (22, 24), 15
"""The column of tags and sizes in the listings of IIS: its positions, and its width in characters.

A time of 24 hours is two characters shorter than one with `AM` or `PM`.
"""

_OS2 = re.compile(
    r"[ ]*(?P<size>\d+)[ ]+(?P<flags>(?:(?:DIR|[ARHS]{1,4})[ ]+)*)"
    r"(?P<a>\d{1,2})-(?P<b>\d{1,2})-(?P<c>\d{2,4})[ ]+(?P<time>\d{1,2}:\d\d)[ ]+(?P<name>.+)",
    re.ASCII | re.DOTALL,
)
_VXWORKS = re.compile(
    r"[ ]*(?P<size>\d+)[ ]+(?P<month>[A-Za-z]{3})-(?P<day>\d{1,2})-(?P<year>\d{4})[ ]+"
    r"(?P<time>\d{1,2}:\d\d:\d\d)[ ]+(?P<name>.+?)(?P<dir>[ ]+<DIR>)?[ ]*",
    re.ASCII | re.DOTALL,
)


def parse_dos(line: str, clock: Clock) -> Entry | None:
    """Parse a line of IIS or of `dir`.

    Raises:
      ValueError: The date or the size is impossible.
    """
    match = _DOS.fullmatch(line)
    if match is None:
        return None
    time = _day_time(match["time"], (match["half"] or "")[:1].upper())
    modified = clock.numeric(match["a"], match["b"], match["c"], time, match["mark"])
    if not match["tag"]:
        return Entry(match["name"], "file", size_of(match["size"]), modified)
    name = _unpadded(match)
    is_link = match["tag"][1:-1].upper() in _LINK_TAGS
    kind: Kind = "link" if is_link else "directory"
    target = _TARGET.search(name) if is_link else None
    plain = name[: target.start()] if target else name
    link = target[0].strip(" []").removeprefix("-> ") if target else ""
    return Entry(plain, kind, None, modified, target=link) if plain else None


def parse_os2(line: str, clock: Clock) -> Entry | None:
    """Parse a line of OS/2. Its years count from 1900.

    Raises:
      ValueError: The date or the size is impossible.
    """
    match = _OS2.fullmatch(line)
    if match is None:
        return None
    kind: Kind = "directory" if "DIR" in match["flags"].split(" ") else "file"
    modified = clock.numeric(match["a"], match["b"], match["c"], match["time"], "-")
    return Entry(match["name"], kind, size_of(match["size"]), modified)


def parse_vxworks(line: str, clock: Clock) -> Entry | None:
    """Parse a line of VxWorks: size, date, time, name, and `<DIR>` after a directory.

    Raises:
      ValueError: The date or the size is impossible.
    """
    match = _VXWORKS.fullmatch(line)
    month = match and month_of(match["month"])
    if match is None or month is None:
        return None
    modified = clock.modified(match["year"], month, match["day"], match["time"])
    kind: Kind = "directory" if match["dir"] else "file"
    return Entry(match["name"], kind, size_of(match["size"]), modified)


def _day_time(time: str, half: str) -> str:
    """Return a time of 24 hours, from one of 12 hours."""
    hours, _, rest = time.partition(":")
    if not half or int(hours) > 12:
        return time
    return f"{int(hours) % 12 + (12 if half == 'P' else 0)}:{rest}"


def _unpadded(match: re.Match[str]) -> str:
    """Return the name after a tag. In the columns of IIS, a blank at its start belongs to it."""
    padded, width = match["padded"], _WIDTH - len(match["tag"])
    is_usual = len(match[0][: match.start("tag")].lstrip(" ")) in _COLUMNS
    if is_usual and padded.startswith(" " * width):
        return padded[width:]
    return padded.lstrip(" ")
