"""Listings of VMS, AS/400, MVS and z/VM. Sizes in blocks or records are unknown."""

from __future__ import annotations

import re

from integration_polling_ftp.listing.dates import Clock, month_of
from integration_polling_ftp.listing.entry import IGNORED, Entry, Kind, size_of

_VMS = re.compile(r"[ ]*(?P<name>[^ \t].*?;\d{1,5})[ \t\r\n]+(?P<rest>.*)", re.ASCII | re.DOTALL)
_VMS_DATE = re.compile(
    r"(?<!\d)(?P<day>\d{1,2})-(?P<month>[A-Za-z\x80-\xff]{3,9})-(?P<year>\d{2,4})"
    r"(?:[ ]+(?P<time>\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?))?",
    re.ASCII,
)
_VMS_OWNED = re.compile(r"\[[^\]]*\][ ]+\([RWED, ]*\)[ ]*", re.ASCII)
_VMS_ERROR = re.compile(
    r"[ ]*(?P<name>[^ \t]+;\d{1,5})[ \t]+(?:%{1,2}[A-Z]+-[A-Z]-[A-Z]+, )?"
    r"(?:insufficient privilege|no privilege|file access|device not).*",
    re.ASCII | re.IGNORECASE,
)
_VMS_BARE = re.compile(
    r"(?P<name>[A-Z0-9$_.-]{20,})[ ]+\d+/\d+[ ]+"
    r"(?P<day>\d{1,2})-(?P<month>[A-Z]{3})-(?P<year>\d{4})"
    r"[ ]+(?P<time>\d{1,2}:\d\d(?::\d\d)?)[ ]+\[.*",
    re.ASCII,
)
_AS400 = re.compile(
    r"(?P<owner>[^ ]+)[ ]+(?:(?P<size>\d+)[ ]+(?P<a>\d{1,2})(?P<mark>[-/.])(?P<b>\d{1,2})(?P=mark)"
    r"(?P<c>\d{2,4})[ ]+(?P<time>\d{1,2}[:.]\d\d[:.]\d\d)[ ]+)?"
    r"(?P<type>\*[A-Z0-9]+)[ ]+(?P<name>.+)",
    re.ASCII | re.DOTALL,
)
_AS400_DIRECTORIES = ("*DIR", "*DDIR", "*FLR", "*LIB", "DIR", "FLR")
_QDLS = re.compile(
    r"/(?:[^/ ]+/)+(?P<name>[^/ ]+)[ ]+(?P<size>\d+)[ ]+(?P<a>\d\d)(?P<mark>/)(?P<b>\d\d)/"
    r"(?P<c>\d\d)[ ]+(?P<time>\d\d:\d\d:\d\d)[ ]+(?P<type>[A-Z]+)[ ]*",
    re.ASCII,
)
_MVS_DATE = (
    r"(?:(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d)|(?P<a>\d\d)/(?P<b>\d\d)/(?P<c>\d\d)"
    r"|\*\*NONE\*\*|\?\?\?\?/\?\?/\?\?)"
)
_MVS = re.compile(
    rf"[ ]*\S{{1,6}}[ ]+\S{{1,8}}[ ]+{_MVS_DATE}[ ]+(?:\S+[ ]+){{1,6}}"
    r"(?P<dsorg>PS|PO|DA|VS|IS|PA|HFS|NONE)(?:-?[A-Z])?[ ]+(?P<name>'?[^ ']+'?)[ ]*",
    re.ASCII,
)
_MVS_BARE = re.compile(
    r"[ ]*(?:(?:\S{1,6}[ ]+)?"
    r"(?P<what>Migrated|MIGRAT|ARCIVE|ARCHIVE|Pseudo Directory|VSAM|GDG|Tape)"
    r"|\S{1,6}[ ]+\S{4}[ ]+VSAM|ARCIVE Not Direct Access Device|Not Mounted"
    r"|Error determining attributes|User catalog connector)[ \t]+(?P<name>'?[^ \t']+'?)[ ]*",
    re.ASCII,
)
_JOB = re.compile(
    r"[ ]*\S{1,8}[ ]+(?P<name>(?:JOB|TSU|STC|[JTS]0)\d{4,7})[ ]+(?:\S{1,8}[ ]+)?"
    r"(?:INPUT|ACTIVE|OUTPUT|HELD)\b.*",
    re.ASCII,
)
_MEMBER = re.compile(
    r"[ ]*(?P<name>[^ ]{1,20})[ ]+\d\d\.\d\d[ ]+\d{2,4}/\d\d/\d\d[ ]+"
    r"(?P<a>\d{2,4})/(?P<b>\d\d)/(?P<c>\d\d)[ ]+(?P<time>\d\d:\d\d(?::\d\d)?)(?:[ ]+[\d?+]+){1,3}"
    r"(?:[ ]+\S{1,8})?[ ]*",
    re.ASCII,
)
_MODULE = re.compile(r"[ ]*(?P<name>[^ ]{1,20})[ ]+[0-9A-F]{6,8}[ ]+[0-9A-F]{6}[ ]+.+", re.ASCII)
_SURE_MODULE = re.compile(
    r"[ ]*(?P<name>[A-Z0-9@#$-]{1,20})[ ]+[0-9A-F]{6,8}[ ]+[0-9A-F]{6}[ ]+.*[ ](?:24|31|64|ANY)"
    r"[ ]+(?:24|31|64|ANY)[ ]*",
    re.ASCII,
)
"""A load module: `_MODULE`, with its addressing and its residence mode."""

_BARE_MEMBER = re.compile(r"[ ]*(?P<name>[A-Z@#$][A-Z0-9@#$]{0,7})[ ]*", re.ASCII)
_ZVM = re.compile(
    r"[ ]*(?P<name>\S{1,20})[ ]+(?:(?P<type>\S{1,8})[ ]+)??(?:(?P<mode>[A-Z]\d)[ ]+)?"
    r"(?:[FV][ ]+\d+|(?P<dir>DIR)[ ]+-)"
    r"[ ]+[\d-]+[ ]+[\d-]+[ ]+"
    r"(?P<a>\d{4}|\d{1,2})(?P<mark>[-/])(?P<b>\d{1,2})(?P=mark)(?P<c>\d{1,4})[ ]+"
    r"(?P<time>\d{1,2}:\d\d:\d\d)(?:[ ]+\S+)?[ ]*",
    re.ASCII,
)


def parse_vms(line: str, clock: Clock) -> Entry | None:
    """Parse a line of VMS. Its files have versions, and `X.DIR;1` is the directory X.

    Raises:
      ValueError: The date is impossible.
    """
    if error := _VMS_ERROR.fullmatch(line):
        return Entry(error["name"], "file")
    if bare := _VMS_BARE.fullmatch(line):
        number = month_of(bare["month"]) or 0
        modified = clock.modified(bare["year"], number, bare["day"], bare["time"])
        return Entry(bare["name"], "file", None, modified)
    match = _VMS.fullmatch(line)
    date = match and _VMS_DATE.search(match["rest"])
    if match is None or (date is None and not _VMS_OWNED.fullmatch(match["rest"])):
        return None
    month = date and month_of(date["month"])
    modified = ""
    if date and month:
        modified = clock.modified(date["year"], month, date["day"], date["time"])
    stem = match["name"].rpartition(";")[0]
    if stem.upper().endswith(".DIR"):
        return Entry(stem[:-4], "directory", None, modified)
    return Entry(match["name"], "file", None, modified)


def parse_as400(line: str, clock: Clock) -> Entry | None:
    """Parse a line of AS/400 (IBM i). A file with members is a directory.

    Raises:
      ValueError: The date or the size is impossible.
    """
    match = _AS400.fullmatch(line) or _QDLS.fullmatch(line)
    if match is None:
        return None
    name = match["name"].rstrip(" ")
    is_directory = name.endswith("/") or match["type"] in _AS400_DIRECTORIES
    kind: Kind = "directory" if is_directory else "file"
    modified = ""
    if match["a"]:
        modified = clock.numeric(match["a"], match["b"], match["c"], match["time"], match["mark"])
    size = size_of(match["size"]) if match["size"] and not is_directory else None
    name = name.rstrip("/").rpartition("/")[2]
    return Entry(name, kind, size, modified) if name else None


def parse_mvs(line: str, clock: Clock) -> Entry | None:
    """Parse a line of MVS (z/OS): a dataset, or a member with statistics.

    Raises:
      ValueError: The date is impossible.
    """
    if match := _MVS.fullmatch(line):
        kind: Kind = "directory" if match["dsorg"] in ("PO", "HFS") else "file"
        modified = ""
        if match["year"]:
            modified = clock.modified(match["year"], int(match["month"]), match["day"])
        elif match["a"]:
            modified = clock.numeric(match["a"], match["b"], match["c"], None, "/")
        return Entry(match["name"].strip("'"), kind, None, modified)
    if match := _MEMBER.fullmatch(line):
        modified = clock.modified(match["a"], int(match["b"]), match["c"], match["time"])
        return Entry(match["name"], "file", None, modified)
    if match := _JOB.fullmatch(line) or _SURE_MODULE.fullmatch(line):
        return Entry(match["name"], "file")
    if match := _MVS_BARE.fullmatch(line):
        is_directory = match["what"] == "Pseudo Directory"
        return Entry(match["name"].strip("'"), "directory" if is_directory else "file")
    return None


def parse_member(line: str, _clock: Clock) -> Entry | None:
    """Parse a member of MVS without statistics, or a load module.

    These lines have few marks; the heading of the listing must come before them.
    """
    match = _MODULE.fullmatch(line) or _BARE_MEMBER.fullmatch(line)
    return Entry(match["name"], "file") if match else None


def parse_zvm(line: str, clock: Clock) -> Entry | None:
    """Parse a line of z/VM: name, type, format and record length, records, blocks, date.

    Raises:
      ValueError: The date is impossible.
    """
    match = _ZVM.fullmatch(line)
    if match is None:
        return None
    modified = clock.numeric(match["a"], match["b"], match["c"], match["time"], match["mark"])
    if match["dir"] or match["type"] == "DIR":
        return Entry(match["name"], "directory", None, modified)
    type = match["type"] or match["mode"]  # a type such as A1 looks like a mode
    return Entry(f"{match['name']}.{type}", "file", None, modified) if type else None


__all__ = [
    "IGNORED",
    "parse_as400",
    "parse_member",
    "parse_mvs",
    "parse_vms",
    "parse_zvm",
]
