"""Listings of hosts and programs whose lines have a form of their own."""

from __future__ import annotations

import re

from integration_polling_ftp.listing.dates import Clock, month_of
from integration_polling_ftp.listing.entry import Entry, Kind, size_of

_NONSTOP = re.compile(
    r"[ ]*(?P<name>[A-Za-z]\S*|\d+-\S+)[ ]+(?:[OU][ ]+)?\d+[ ]+(?P<size>\d+)[ ]+"
    r"(?P<day>\d{1,2})-(?P<month>[A-Za-z]{3})"
    r'-(?P<year>\d{2,4})[ ]+(?P<time>\d{1,2}:\d\d:\d\d)[ ]+\d+,[ ]*\d+[ ]+"[^"]*"[ ]*',
    re.ASCII,
)
_OS9 = re.compile(
    r"[ ]*\d+\.\d+[ ]+(?P<a>\d\d)/(?P<b>\d\d)/(?P<c>\d\d)[ ]+(?P<hour>\d\d)(?P<minute>\d\d)[ ]+"
    r"(?P<kind>[-d])[-ewrs]{7}[ ]+[0-9A-Fa-f]+[ ]+(?P<size>\d+)[ ](?P<name>.+)",
    re.ASCII | re.DOTALL,
)
_NORTEL = re.compile(
    r"(?P<name>\S+)[ ]+(?P<size>\d+)[ ]+(?P<a>\d\d)/(?P<b>\d\d)/(?P<c>\d{2,4})"
    r"[ ]+[A-Z][a-z]+\.?[ ]+"
    r"(?P<time>\d{1,2}:\d\d:\d\d)[ ]*",
    re.ASCII,
)
_NAME_FIRST = re.compile(
    r"(?P<name>[ ]?[^ <>]+(?:[ ][^ <>]+)*)[ ]+(?:(?P<dir><DIR>)|(?P<size>\d+))[ ]+"
    r"(?:(?P<month>[A-Z][a-z]{2})[ ]+(?P<day>\d{1,2})[ ]+(?P<year>\d{4})"
    r"|(?P<a>\d\d)(?P<mark>[-/])(?P<b>\d\d)(?P=mark)(?P<c>\d{2}|\d{4}))[ ]+"
    r"(?P<time>\d{1,2}:\d\d)(?:[ ]+[RHSA]{1,4}|[ ](?P<long>.*[^ ]))?[ ]*",
    re.ASCII,
)
"""Chameleon, NCSA and WinQVT. SuperTCP repeats each name after its short form."""

_VSHELL = re.compile(
    r"(?P<size>\d+)[ ]+(?P<month>[A-Za-z]{3})[ ]+(?P<day>\d{1,2}),[ ]+(?P<year>\d{4})[ ]+"
    r"(?P<time>\d{1,2}:\d\d)[ ](?P<name>.+)",
    re.ASCII | re.DOTALL,
)
_VOS_DATE = (
    r"(?P<year>\d{2}|\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[ ]+(?P<time>\d\d:\d\d:\d\d)[ ]+"
    r"(?P<name>[^ ]+)"
)
_VOS = re.compile(
    rf"[ ]*[a-z-][ ]+\d+[ ]+(?P<organization>[a-z]{{2}}[a-z0-9](?:-\d+)?[ ]+)?{_VOS_DATE}[ ]*",
    re.ASCII,
)
_VOS_LINK = re.compile(rf"[ ]*{_VOS_DATE} ->[ ]*(?P<target>.*)", re.ASCII)
_GCOS_8 = re.compile(
    r"(?P<kind>[-d])(?: [-rwxst]{3}){3}[ ]+(?P<size>\d+)[ ]+"
    r"(?P<a>\d\d)/(?P<b>\d\d)/(?P<c>\d\d)(?:[ ]+(?P<time>\d\d:\d\d:\d\d))?[ ]+\S+[ ]+(?P<name>\S+)",
    re.ASCII,
)
_GCOS_7 = re.compile(
    r"(?P<kind>[-d]) [-a-z][ ]+(?:[-a-z]{5}\d[ ]+)?[A-Z]\S*[ ]+[A-Z]\S*[ ]+"
    r"(?:(?P<month>[A-Z]{3})[ ]+(?P<day>\d{1,2}), (?P<year>\d{4})[ ]+)?(?P<name>\S+)",
    re.ASCII,
)
_BFS = re.compile(
    r"(?P<a>\d\d)/(?P<b>\d\d)/(?P<c>\d{4})[ ]+(?P<time>\d\d:\d\d:\d\d)[ ]+(?P<kind>[A-Z])[ ]+"
    r"(?:\d+|-)[ ]+(?:(?P<size>\d+)|-)[ ]+'(?P<name>.+)'",
    re.ASCII | re.DOTALL,
)
"""The byte file system of z/VM."""

_BFS_KINDS: dict[str, Kind] = {"F": "file", "D": "directory"}
_DISTINCT = re.compile(
    r"(?P<kind>[-d])[-w][-a][-s][-h][ ]+(?P<size>\d+)[ ]+"
    r"(?P<month>[A-Z][a-z]{2})[ ]+(?P<day>\d{1,2}),(?P<year>\d{4})[ ]+(?P<time>\d{1,2}:\d\d)[ ]{2}"
    r"(?P<name>.+)",
    re.ASCII | re.DOTALL,
)


def parse_other(line: str, clock: Clock) -> Entry | None:
    """Parse a line of one of the hosts in this module.

    They are HP NonStop, Microware OS-9, Stratus VOS, Bull GCOS, the byte file system of z/VM,
    Nortel's wfFtp, the first VShell, and programs for Windows and DOS.

    Raises:
      ValueError: The date or the size is impossible.
    """
    if match := _OS9.fullmatch(line):
        time = f"{match['hour']}:{match['minute']}"
        modified = clock.modified(match["a"], int(match["b"]), match["c"], time)
        return Entry(match["name"], _kind(match), size_of(match["size"]), modified)
    if match := _NORTEL.fullmatch(line):
        modified = clock.numeric(match["a"], match["b"], match["c"], match["time"], "/")
        return Entry(match["name"], "file", size_of(match["size"]), modified)
    if match := _NAME_FIRST.fullmatch(line):
        return _name_first(match, clock)
    if match := _VOS.fullmatch(line) or _VOS_LINK.fullmatch(line):
        return _vos(match, clock)
    if match := _GCOS_8.fullmatch(line):
        modified = clock.numeric(match["a"], match["b"], match["c"], match["time"], "/")
        return Entry(match["name"], _kind(match), size_of(match["size"]), modified)
    if match := _BFS.fullmatch(line):
        modified = clock.numeric(match["a"], match["b"], match["c"], match["time"], "/")
        size = size_of(match["size"]) if match["size"] else None
        return Entry(match["name"], _BFS_KINDS.get(match["kind"], "other"), size, modified)
    if match := _GCOS_7.fullmatch(line):
        return Entry(match["name"], _kind(match), None, _named(match, clock))
    if match := _DISTINCT.fullmatch(line):
        return Entry(match["name"], _kind(match), size_of(match["size"]), _named(match, clock))
    match = _NONSTOP.fullmatch(line) or _VSHELL.fullmatch(line)
    if match is None or month_of(match["month"]) is None:
        return None
    name = match["name"].removesuffix("/")
    kind: Kind = "directory" if name != match["name"] else "file"
    return Entry(name, kind, size_of(match["size"]), _named(match, clock))


def _kind(match: re.Match[str]) -> Kind:
    return "directory" if match["kind"] == "d" else "file"


def _named(match: re.Match[str], clock: Clock) -> str:
    """Return the time of a date with the name of its month."""
    time = match.groupdict().get("time")
    month = match["month"] and month_of(match["month"])
    return clock.modified(match["year"], month, match["day"], time) if month else ""


def _name_first(match: re.Match[str], clock: Clock) -> Entry:
    """Return the entry of a line that begins with the name."""
    if match["a"]:
        modified = clock.numeric(match["a"], match["b"], match["c"], match["time"], match["mark"])
    else:
        modified = _named(match, clock)
    name = match["long"] or match["name"]
    if match["dir"] or name.endswith("/"):
        return Entry(name.removesuffix("/"), "directory", None, modified)
    return Entry(name, "file", size_of(match["size"]), modified)


def _vos(match: re.Match[str], clock: Clock) -> Entry:
    """Return the entry of a line of Stratus VOS. It counts blocks; directories have no format."""
    modified = clock.modified(match["year"], int(match["month"]), match["day"], match["time"])
    found = match.groupdict()
    if "target" in found:
        return Entry(match["name"], "link", None, modified, target=found["target"])
    return Entry(match["name"], "file" if found["organization"] else "directory", None, modified)
