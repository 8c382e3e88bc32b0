"""Dates of mail: RFC 5322 with its obsolete zones, ISO 8601, and common mistakes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from core.mail.encoded_words import readable
from core.mail.fields import Fields

MAX_FIELDS = 20
"""The number of fields with one name that are tried."""

_MONTHS = {
    word: number for number, words in enumerate((
        "jan ene gen", "feb f\u00e9v fev", "mar m\u00e4r mrz mrt maa", "apr avr abr",
        "may mai mei mag maj", "jun giu juin", "jul lug juil", "aug ao\u00fb aou ago",
        "sep set", "oct okt out ott", "nov", "dec dez dic d\u00e9c des"), 1)
    for word in words.split()
}  # fmt: skip
"""Months by the first letters of their names, in the languages of mail programs."""
_ZONES = {"ut": 0, "utc": 0, "gmt": 0, "z": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5,
    "mst": -7, "mdt": -6, "pst": -8, "pdt": -7, "cet": 1, "cest": 2, "met": 1, "mest": 2,
    "akst": -9, "akdt": -8, "hst": -10, "ast": -4, "adt": -3, "mez": 1, "mesz": 2, "cat": 2,
    "sast": 2, "eat": 3, "msd": 4, "pkt": 5, "wib": 7, "pht": 8, "awst": 8, "brt": -3, "art": -3,
    "bst": 1, "wet": 0, "west": 1, "eet": 2, "eest": 3, "msk": 3, "jst": 9, "kst": 9, "hkt": 8,
    "sgt": 8, "ist": 5.5, "aest": 10, "aedt": 11, "nzst": 12, "nzdt": 13}  # fmt: skip
_NAMED_ZONES = re.compile(
    r"(?P<m8>pacific)|(?P<m7>mountain)|(?P<m6>central (?:standard|daylight|america))"
    r"|(?P<m5>eastern (?:standard|daylight)|sa pacific)|(?P<m4>atlantic)|(?P<m9>alaska)"
    r"|(?P<m10>hawaii)|(?P<m3>e\. south america|argentina)|(?P<p0>greenwich"
    r"|gmt (?:standard|daylight))"
    r"|(?P<p1>w(?:\.|est) europe|central europe|mitteleurop|romance|europe centrale|europa central"
    r"|europa occidentale)|(?P<p2>e(?:\.|ast)? europe|fle |gtb |osteurop|south africa|israel|egypt)"
    r"|(?P<p3>russian|turkey|arab )|(?P<p8>china|singapore|taipei|w\. australia)"
    r"|(?P<p9>tokyo|korea)|(?P<p7>se asia)|(?P<p10>(?:aus |e\. australia|tasmania))"
    r"|(?P<p12>new zealand)",
    re.IGNORECASE,
)
"""Zones by the names that Windows and others write, with their hours in winter."""

_SUMMER = re.compile(r"daylight|summer|sommer|d'\u00e9t\u00e9|verano|estiva|legale", re.IGNORECASE)
_TIME = re.compile(
    r"(?<!\d)(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,]\d+)?)?(?!\d)\s*([ap]\.?m\b)?", re.IGNORECASE
)
_DOTTED = re.compile(r"(?<=\s)(\d{1,2})\.(\d{2})(?:\.(\d{2}))?(?![\d.])()")
_DAY = re.compile(
    r"(?<!\d)(\d{1,2})(?:st|nd|rd|th)?[\s./-]*(?:de\s+)?([^\W\d_]{3,12})[\s.,/-]*(?:de\s+)?(\d{2,4})(?!\d)"
)
_AMERICAN = re.compile(r"([^\W\d_]{3,12})\.?\s+(\d{1,2})(?:st|nd|rd|th)?\b")
_ISO = re.compile(
    r"(?<!\d)(\d{4})\s?[-/.\u5e74]\s?(\d{1,2})\s?[-/.\u6708]\s?(\d{1,2})(?:T|\s|\u65e5|\Z)",
    re.IGNORECASE,
)
_NUMERIC = re.compile(r"(?<![\d.])(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?![\d.])")
_OFFSET = re.compile(r"(?:(?:GMT|UTC?)\s*)?([+-])\s*(\d{1,2}):?(\d{2})?(?!\d)", re.IGNORECASE)
_COMMENT = re.compile(r"\(([^()]*)\)")
_COLON = re.compile(r"(?<=\d)\s*:\s*(?=\d\d(?!\d))")
_WORD = re.compile(r"[A-Za-z]+")


def parse_date(value: str) -> datetime | None:
    """Return a date with its zone (default: UTC), or None if it is invalid."""
    text = value[:300]
    comments = _COMMENT.findall(text)  # some have the zone
    text = re.sub(r"\s+", " ", " ".join([_COMMENT.sub(" ", text), *comments])).strip()
    text = _COLON.sub(":", text)
    clock = _TIME.search(text) or _DOTTED.search(text)
    iso = _ISO.search(text)
    if iso:
        year, month, day = int(iso[1]), int(iso[2]), int(iso[3])
    elif named := next((each for each in _DAY.finditer(text) if _month(each[2])), None):
        day, month, year = int(named[1]), _month(named[2]), _year(named[3])
    elif numeric := _numeric(text, clock):
        year, month, day = numeric
    elif clock and (american := _american(text)):
        month, day = american
        years = re.findall(r"(?<![\d+:-])(\d{4})(?!\d)", text)
        year = int(years[-1]) if years else 0
    else:
        return None
    hour, minute, second = (
        (int(clock[1]), int(clock[2]), int(clock[3] or 0)) if clock else (0, 0, 0)
    )
    if clock and clock[4]:
        hour = hour % 12 + (12 if clock[4][0] in "pP" else 0)
    rest = text[clock.end() :] if clock else ""
    try:
        zone = timezone(_zone(rest))
        if second == 60:  # a leap second
            second = 59
        return datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except (ValueError, OverflowError):
        return None


def _numeric(text: str, clock: re.Match[str] | None) -> tuple[int, int, int] | None:
    """Return a date of digits; None if it could be of two days."""
    if (found := _NUMERIC.search(text)) is None:
        return None
    first, second, year = int(found[1]), int(found[3]), int(found[4])
    is_american = second > 12 or (found[2] == "/" and clock is not None and bool(clock[4]))
    if first > 12 or (found[2] == "." and not is_american) or first == second:
        return year, second, first
    return (year, first, second) if is_american else None


def _american(text: str) -> tuple[int, int] | None:
    for found in _AMERICAN.finditer(text):
        if month := _month(found[1]):
            return month, int(found[2])
    return None


def _month(name: str) -> int:
    low = name.lower()
    return _MONTHS.get(low[:4]) or _MONTHS.get(low[:3], 0)


def _year(digits: str) -> int:
    """Return the year; two or three digits as RFC 5322, section 4.3, says."""
    year = int(digits)
    if len(digits) == 2:
        return year + (2000 if year < 50 else 1900)
    return year + 1900 if len(digits) == 3 else year


def _zone(text: str) -> timedelta:
    if found := _OFFSET.search(text):
        digits = found[2] + (found[3] or "")
        hours, minutes = (int(found[2]), int(found[3] or 0)) if len(digits) != 3 else (
            int(digits[0]), int(digits[1:]))  # fmt: skip
        if hours < 24 and minutes < 60:
            offset = timedelta(hours=hours, minutes=minutes)
            return -offset if found[1] == "-" else offset
        return timedelta()
    if named := _NAMED_ZONES.search(text):
        name = named.lastgroup or "p0"
        hours = int(name[1:]) * (-1 if name[0] == "m" else 1)
        return timedelta(hours=hours + bool(_SUMMER.search(text)))
    word = _WORD.search(text)
    return timedelta(hours=_ZONES.get(word[0].lower(), 0)) if word else timedelta()


def date_of(fields: Fields) -> tuple[datetime | None, str | None]:
    """Return the sender's date, and the field that has it; else the topmost valid `Received`."""
    for name in ("date", "resent-date", "delivery-date"):
        for value in fields.all(name)[:MAX_FIELDS]:
            if found := parse_date(readable(value[:1_000], fields.hints)):
                return found, name
    for value in fields.all("received")[:MAX_FIELDS]:
        if found := parse_date(value[-300:].rpartition(b";")[2].decode("latin-1")):
            return found.astimezone(found.tzinfo or UTC), "received"
    return None, None
