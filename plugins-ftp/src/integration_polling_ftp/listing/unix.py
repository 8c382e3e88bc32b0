"""Listings in the form of `ls -l`, with the owners, sizes and dates of many servers.

The fields between the permissions and the size vary, and may contain blanks. The first size that is
followed by a date therefore ends them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from integration_polling_ftp.listing.dates import Clock, epoch, full_year, month_of
from integration_polling_ftp.listing.entry import IGNORED, Entry, Kind, size_of

_KINDS: dict[str, Kind] = {
    "-": "file",
    "d": "directory",
    "l": "link",
    "D": "directory",
    "f": "file",
    "a": "file",
}
_OTHER = "bcpsDCMnPw?"
_PERMISSIONS = re.compile(
    rf"[ \t]*(?:\d+[ \t]+){{0,2}}(?P<kind>[-dlf{_OTHER}]|a(?=[-rwx]{{9}}))"
    r"(?:(?:[-rwxsStTlLugoaAc?]{9}[.+@*]?|[-A-Z]{12}|[ ]{0,2}\[[-A-Za-z]{6,9}\])(?=[ \t\d])"
    r"|(?:[-rwx]{8}|[-rwx]{6})(?=[ \t]))"
    r"|(?=r)[-rwx]{9}(?=[ ])",
    re.ASCII,
)
"""The kind and the permissions. In Plan 9, `a` is an append-only file. HylaFAX and AXSPort give
fewer than nine letters, and StingRay gives files no kind.
"""

_WORD = r"[^\W\d_][^\s\d]{1,15}|Th\d\d|[\x80-\xff.]{1,24}|[A-Za-z\x80-\xff?][^\s\d,]{1,15}[.,]?"
_CLOCK = r"\d{1,2}[:.]\d\d(?:[:.]\d\d(?:[.,]\d{1,9})?)?(?:[AaPp][Mm])?"
_HIGH = r"[\x80-\xff][\x40-\xff]{0,3}"
_DATES = [
    # 2005-06-07 21:22:23.000000000 +0200, 1999/10/12 17:12, 24-04-2003 17:12, 2004.07.15
    rf"(?P<a>\d{{1,4}})(?P<mark>[-/.])(?P<b>\d{{1,2}})(?P=mark)(?P<c>\d{{2,4}})"
    rf"(?:(?:[ ]+|T)(?P<t1>{_CLOCK})(?:[ ]?(?P<zone>[-+]\d\d:?\d\d)|Z)?|(?P<pad>[ ]*))",
    # 2021-3-5 8:01
    rf"(?P<a>\d{{4}})(?P<mark>[-/.])(?P<b>\d{{1,2}})(?P=mark)(?P<c>\d)[ ]+(?P<t1>{_CLOCK})",
    # 01-jun-99, 1-Jun-1999 10:00
    rf"(?P<d6>\d{{1,2}})-(?P<m6>[A-Za-z]{{3}})-(?P<y6>\d{{2,4}})(?:[ ]+(?P<t6>{_CLOCK}))?",
    # 09-26 13:45, 09-26 2000
    rf"(?P<m2>\d{{1,2}})[-/](?P<d2>\d{{1,2}})[ ]+(?:(?P<t2>{_CLOCK})|(?P<y2>\d{{4}}))",
    # 2003<year> 4<month> 18<day>
    rf"(?P<y3>\d{{4}})(?:{_HIGH})?[ ]*(?P<m3>\d{{1,2}}){_HIGH}[ ]*(?P<d3>\d{{1,2}})(?:{_HIGH})?"
    rf"(?:[ ]+(?P<t3>{_CLOCK}))?",
    # 4<month> 18<day> 2003<year>, 8<month> 17 08:52
    rf"(?P<m4>\d{{1,2}})[ ]?{_HIGH}[ ]*(?P<d4>\d{{1,2}})(?:{_HIGH})?[ ]+"
    rf"(?:(?P<t4>{_CLOCK})|(?P<y4>\d{{4}})(?:{_HIGH})?)",
    # Fri Jan 10 2006 03:26:15, Jan 10 03:26:15 2006, Oct 08, 2002 09:47, Jan 10 03:26, Apr 8 1994
    rf"(?:[A-Z][a-z]{{2}}[ ]+(?=[A-Z][a-z]{{2}}[ ]+\d))?(?P<m5>{_WORD})[ ]+(?P<d5>\d{{1,2}})[.,]?"
    rf"[ ]+(?:(?P<t5>\d{{1,2}}:\d\d:\d\d)[ ]+(?P<y5>\d{{4}})"
    rf"|(?P<y5a>\d{{4}}),?[ ]+(?P<t5a>{_CLOCK})"
    rf"|(?P<t5b>{_CLOCK}|\d{{1,2}}:\d(?=[ ]))|(?P<y5b>\d{{4}}))",
    # 10 Jan 03:26, 26. Juli, 20:10, 2. Okt. 2003, 10 de Jan 2003
    rf"(?P<d7>\d{{1,2}})[.,]?[ ]+(?:de[ ]|d')?(?P<m7>{_WORD})[ ]+(?:de[ ])?"
    rf"(?:(?P<y7a>\d{{4}}),?[ ]+(?P<t7a>{_CLOCK})|(?P<t7>{_CLOCK})|(?P<y7>\d{{4}}))",
    # 2019. jan. 24.
    rf"(?P<y9>\d{{4}})[.][ ]+(?P<m9>{_WORD})[ ]+(?P<d9>\d{{1,2}})[.,]?(?:[ ]+(?P<t9>{_CLOCK}))?",
    # Jun 17 93 12:22, Sept 14, 99 2:30 pm
    rf"(?P<m10>{_WORD})[ ]+(?P<d10>\d{{1,2}}),?[ ]+(?P<y10>\d\d)[ ]+"
    r"(?P<t10>\d{1,2}:\d\d(?:[ ][AaPp][Mm](?=[ ]))?)",
    # numeric month: 3 29 03:26
    rf"(?P<m8>\d{{1,2}})[ ]+(?P<d8>\d{{1,2}})[ ]+(?:(?P<t8>{_CLOCK})|(?P<y8>\d{{4}}))",
]
_WORDS = ("m5", "m6", "m7", "m9", "m10")
_DAYS = tuple(f"d{number}" for number in range(2, 11))
_YEARS = ("y2", "y3", "y4", "y5", "y5a", "y5b", "y6", "y7", "y7a", "y8", "y9", "y10")
"""The groups for the names of months, for days and for years. Times have `t` for `y`."""

MAX_YEAR = 2107
"""The last year of FAT, which no file system of a server exceeds by design."""

MAX_DATES = 5
"""The number of places in a line that may begin a date."""

_TAIL = r"(?:[ ](?P<name>.+))"
_SIZES = [
    r"(?<![^ \t])(?P<size>\d{1,3}(?:[.,']\d{3})+|-?\d+(?:[.,]\d+)?[kKMGTP]?B?)[ \t]+",
    r"(?<=[^\d \t.,':])(?<![ \t]-)(?P<size>\d+)[ \t]+",
]
_PATTERNS = [
    [re.compile(size + f"(?:{date})" + _TAIL, re.ASCII | re.DOTALL) for date in _DATES]
    for size in _SIZES
]
_EXACT = re.compile(r"\d+|\d{1,3}(?:[.,']\d{3})+", re.ASCII)
_USUAL = re.compile(
    r"(?P<kind>[-dl])[-rwxsStT]{9}[.+@]?[ ]+\d+[ ]+[^ ]+[ ]+[^ ]+[ ]+(?P<size>\d+)[ ]+"
    r"(?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[ ]+(?P<day>\d{1,2})[ ]+"
    r"(?:(?P<time>\d\d:\d\d)|(?P<year>\d{4}))[ ](?P<name>.+)",
    re.ASCII | re.DOTALL,
)
"""The form of most servers, which the general patterns read as well, but slowly."""

_DATELESS = re.compile(r"[ \t]*\d+[ \t]+\S+[ \t]+\S+[ \t]+(?P<size>\d+)[ ](?P<name>\S+)", re.ASCII)
_UNKNOWN = re.compile(r"(?P<kind>[-dl])\?{9}(?:[ ]+\?){5}[ ](?P<name>.+)", re.ASCII | re.DOTALL)
"""GNU `ls` writes question marks for a name whose facts it cannot read."""

_DEVICE = re.compile(r"[^\n]*?\d+,[ ]*\d+[ ]", re.ASCII)
_NUMERIC = re.compile(
    r"(?P<mode>0?[0-7]{5,6})[ ]+\S+[ ]+\S+[ ]+(?P<size>\d+)[ ]+(?P<time>\d+)[ ]+(?P<name>.+)",
    re.ASCII | re.DOTALL,
)
_MODES: dict[int, Kind] = {0o100000: "file", 0o040000: "directory", 0o120000: "link"}


def parse_unix(line: str, clock: Clock) -> Entry | None:
    """Parse a line in the form of `ls -l`; also NetWare's, and modes in octal digits.

    A line whose month is in an unknown language becomes an entry without a time.

    Raises:
      ValueError: The date or the size is impossible.
    """
    if usual := _USUAL.fullmatch(line):
        month = month_of(usual["month"]) or 0
        modified = clock.modified(usual["year"], month, usual["day"], usual["time"])
        return _entry(usual["kind"], _name(usual), size_of(usual["size"]), modified)
    if unknown := _UNKNOWN.fullmatch(line):
        return _entry(unknown["kind"], unknown["name"], None, "")
    permissions = _PERMISSIONS.match(line)
    if permissions is None:
        return _numeric(line)
    rest, kind = line[permissions.end() :], permissions["kind"] or "-"
    if kind in "bc" and _DEVICE.match(rest):
        return IGNORED
    match = _find(rest)
    if match is None and _KINDS.get(kind, "other") == "other":
        return IGNORED
    if match is None:
        match = _DATELESS.fullmatch(rest)
        return match and _entry(kind, match["name"], size_of(match["size"]), "")
    name, groups = match["name"], match.groupdict()
    if (zone := groups.get("zone")) and _is_name(match):
        name, groups["zone"] = f"{zone} {name}", None
    if "[" in permissions[0] or (match.groupdict().get("pad") or ""):
        name = name.lstrip(" ")
    return _entry(kind, name, _size(match["size"]), _modified(groups, clock))


def _name(usual: re.Match[str]) -> str:
    """Return the name. A year may stand at the left of its column, before a blank too many."""
    name, year = usual["name"], usual.start("year")
    is_left = year > 0 and usual.string[year - 2] != " " and name.startswith(" ")
    return name[1:] if is_left and len(name) > 1 else name


def _find(rest: str) -> re.Match[str] | None:
    """Return the first size with a date after it; the earliest position wins.

    An owner and a group with digits may look like a size and a date, so plausible dates win.
    """
    for patterns in _PATTERNS:
        plausible: list[re.Match[str]] = []
        doubtful: list[re.Match[str]] = []
        for pattern in patterns:
            match, places = pattern.search(rest), MAX_DATES
            while match is not None and places:
                if _is_plausible(match):
                    plausible.append(match)
                    break
                doubtful.append(match)
                match, places = pattern.search(rest, match.start() + 1), places - 1
        if found := plausible or doubtful:
            return min(found, key=re.Match[str].start)
    return None


def _is_plausible(match: re.Match[str]) -> bool:
    groups = match.groupdict()
    word, day, year = (_first(groups, *names) for names in (_WORDS, _DAYS, _YEARS))
    return (
        (word is None or month_of(word) is not None)
        and (day is None or 0 < int(day) <= 31)
        and (year is None or 1900 <= full_year(year) <= MAX_YEAR)
    )


def _is_name(match: re.Match[str]) -> bool:
    """Return True if a zone is the beginning of the name: a blank and no seconds precede it."""
    return match["t1"].count(":") < 2 and match.string[match.start("zone") - 1] == " "


def _first(groups: dict[str, str | None], *names: str) -> str | None:
    return next((value for name in names if (value := groups.get(name)) is not None), None)


def _modified(groups: dict[str, str | None], clock: Clock) -> str:
    if groups.get("a"):
        return _numbers(groups, clock)
    word = _first(groups, *_WORDS)
    digits = _first(groups, "m2", "m3", "m4", "m8")
    month = month_of(word) if word else int(digits or 0)
    if month is None:
        return ""
    day = _first(groups, *_DAYS)
    year = _first(groups, *_YEARS)
    time = _first(groups, *(name.replace("y", "t") for name in _YEARS))
    return clock.modified(year, month, day or "0", time and time.replace(",", ".").replace(" ", ""))


def _numbers(groups: dict[str, str | None], clock: Clock) -> str:
    a, b, c, mark = (groups[key] or "" for key in ("a", "b", "c", "mark"))
    modified = clock.numeric(a, b, c, groups["t1"], mark)
    return _shift(modified, zone) if (zone := groups.get("zone")) else modified


def _shift(modified: str, zone: str) -> str:
    """Return a time in UTC, from one with an offset such as `+0200`."""
    digits = zone[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    forms = {12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
    form = forms[len(modified)]
    moment = datetime.strptime(modified, form).replace(tzinfo=UTC)
    return f"{moment - timedelta(minutes=-minutes if zone[0] == '-' else minutes):{form}}"


def _size(text: str) -> int | None:
    """Return the size in bytes; None if the server rounds it, as in `33.5k`."""
    return size_of(text) if _EXACT.fullmatch(text) else None


def _entry(mark: str, name: str, size: int | None, modified: str) -> Entry:
    kind = _KINDS.get(mark, "other")
    target = ""
    if kind == "link":
        name, target = _split_link(name, size)
    elif kind == "directory" and len(name) > 1:
        name = name.removesuffix("/")
    return Entry(name, kind, size, modified, target=target)


def _split_link(text: str, size: int | None) -> tuple[str, str]:
    """Return the name and the target of a link, both of which may contain an arrow.

    Most servers list a link with the length of its target as its size, so the size decides. If it
    fits no arrow, the first one separates them. A name cannot be empty.
    """
    arrows = [match.start() for match in re.finditer("(?= -> )", text) if match.start()]
    if not arrows:
        return text, ""
    fitting = (at for at in arrows if len(text) - at - 4 == size)
    at = next(fitting, arrows[0])
    return text[:at], text[at + 4 :]


def _numeric(line: str) -> Entry | None:
    match = _NUMERIC.fullmatch(line)
    if match is None:
        return None
    kind = _MODES.get(int(match["mode"], 8) & 0o170000, "other")
    return Entry(match["name"], kind, size_of(match["size"]), epoch(match["time"]))
