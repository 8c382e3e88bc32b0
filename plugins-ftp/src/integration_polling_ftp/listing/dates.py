"""Dates of LIST: month names of many languages, and times without a year.

LIST does not name a time zone; its times are read as UTC. MLSD exists for this reason (RFC 3659,
section 2.3).
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files

_LATIN = ("cp1252", "cp1250", "iso8859-2", "cp1254", "cp1257", "cp850", "cp852")
_OTHER = (
    "cp1251", "koi8-r", "koi8-u", "cp1253", "cp1255", "cp1256", "iso8859-5", "iso8859-7", "tis-620",
    "cp866", "cp737", "cp862", "gbk", "big5", "cp932", "euc-jp", "cp949",
)  # fmt: skip
"""The charsets of month names. Words in the first ones have ASCII letters, too."""

_SPECIAL = str.maketrans("\u0131\u0142\u00f8\u0111", "ilod")


@dataclass(frozen=True, slots=True)
class Clock:
    """The common properties of the lines of one listing.

    Attributes:
      now: The server's time, for times without a year.
      day_first: True if the numeric dates of the listing are written with the day first.
    """

    now: datetime
    day_first: bool = False

    def modified(
        self, year: str | int | None, month: int, day: str | int, time: str | None = None
    ) -> str:
        """Return a time in the form of `Entry.modified`.

        Args:
          year: The year, with two, three (years since 1900) or four digits. None: the latest year
            in which the time is in the past. A time up to one day ahead counts as past, because of
            time zones.
          month: The month, from 1.
          day: The day.
          time: `HH:MM`, with `:SS` and a fraction if the server gives them, and with `AM` or `PM`;
            `24:00` is the end of the day. Default: none.

        Raises:
          ValueError: There is no such time.
        """
        hours, minutes, seconds = _parts(time)
        days, hours = (
            divmod(hours, 24) if (hours, minutes, seconds or 0) == (24, 0, 0) else (0, hours)
        )
        clock = (hours, minutes, seconds or 0)
        if year is None:
            moment = self._latest(month, int(day), clock)
        else:
            moment = datetime(full_year(year), month, int(day), *clock, tzinfo=UTC)
        moment += timedelta(days=days)
        if time is None:
            return f"{moment.year:04}{moment:%m%d}"
        return f"{moment.year:04}{moment:%m%d%H%M}{'' if seconds is None else f'{moment:%S}'}"

    def _latest(self, month: int, day: int, clock: tuple[int, int, int]) -> datetime:
        limit = self.now + timedelta(days=1)
        for year in range(limit.year, limit.year - 9, -1):
            if (month, day) == (2, 29) and (year % 4 or (not year % 100 and year % 400)):
                continue
            moment = datetime(year, month, day, *clock, tzinfo=UTC)
            if moment <= limit:
                return moment
        raise ValueError("there is no such time")

    def numeric(self, first: str, second: str, third: str, time: str | None, mark: str) -> str:
        """Return a time whose date is three numbers.

        A year of four digits, or a first number of 0 or over 31, comes first. Otherwise the day
        comes first after a vote (`day_first`), if the mark is a dot, or if the first number is over
        12.

        Raises:
          ValueError: There is no such time.
        """
        if len(first) == 4 or not 0 < int(first) <= 31:
            return self.modified(first, int(second), third, time)
        if (self.day_first or mark == "." or int(first) > 12) and int(second) <= 12:
            return self.modified(third, int(second), first, time)
        return self.modified(third, int(first), second, time)


def full_year(year: str | int) -> int:
    """Return a year with four digits. 70 to 99 are in the 20th century; 100 and more since 1900."""
    number = int(year)
    if number >= 1000 or len(str(year)) > 3:
        return number
    return number + (1900 if number >= 70 else 2000)


def month_of(word: str) -> int | None:
    """Return the month of a name or an abbreviation in one of many languages and charsets.

    Args:
      word: The name, decoded as latin-1.
    """
    word = word.rstrip(".,")
    if word.isascii():
        return _month(word)
    raw = word.encode("latin-1")
    has_ascii = any(character.isascii() for character in word)
    for charset in ("utf-8", *(_LATIN if has_ascii else ()), *_OTHER):
        try:
            found = _month(raw.decode(charset))
        except UnicodeDecodeError:
            continue
        if found:
            return found
    return None


def epoch(seconds: str) -> str:
    """Return seconds since 1970 in the form of `Entry.modified`.

    Raises:
      ValueError: The time is out of range.
    """
    if len(seconds) > 11:
        raise ValueError("the time is out of range")
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))
    return f"{moment:%Y%m%d%H%M%S}"


def _parts(time: str | None) -> tuple[int, int, int | None]:
    if time is None:
        return 0, 0, None
    time, half = (time[:-2], time[-2:].upper()) if time[-1:] in "mM" else (time, "")
    hours, minutes, *seconds = time.replace(".", ":").split(":")
    hour = int(hours) % 12 + 12 * (half == "PM") if half else int(hours)
    return hour, int(minutes), int(seconds[0]) if seconds else None


def _plain(word: str) -> str:
    """Return a word in lower case and without accents."""
    folded = unicodedata.normalize("NFKD", word.casefold()).translate(_SPECIAL)
    return "".join(character for character in folded if not unicodedata.combining(character))


def _names() -> dict[str, int]:
    """Return the month of each name, and of each beginning that only one month has."""
    table = files(__package__).joinpath("months.txt").read_text("utf-8")
    full = {
        _plain(word): month
        for month, line in enumerate(table.splitlines(), 1)
        for word in line.split()
    }
    found: dict[str, set[int]] = {}
    for word, number in full.items():
        for length in range(3, len(word) + 1):
            found.setdefault(word[:length], set()).add(number)
    return {word: min(numbers) for word, numbers in found.items() if len(numbers) == 1} | full


_NAMES = _names()
_NAMES |= {"mar": 3, "lis": 11, "m?r": 3, "\u03bc\u03b1\u03b9": 5}


def _month(word: str) -> int | None:
    return _NAMES.get(_plain(word))
