"""Versions of files: the server's facts about a file when it was fetched.

The fingerprint of a file is its version as text: `size:time`, and the other fields of `Version`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from integration_polling_ftp.connection import Stat
from integration_polling_ftp.listing import timestamp

GROWING = "+"
"""Replaces the time in the version of a file that grew while it was read."""

REFETCH = "~"
"""Marks a racy version: the file may have changed since, without a change of size and time."""

RECHECK = "?"
"""Marks a version whose listed time is racy, but whose exact time is not."""

ZONE_SECONDS = 15 * 60
"""Time zones differ by multiples of this."""

FURTHEST_ZONE = timedelta(hours=26)
"""The difference between the first time zone and the last one."""

SLACK_SECONDS = 5
"""The difference between the clocks of server and engine, apart from their time zones."""

RECHECKED = timedelta(days=2)
"""The age up to which the exact time of a racy version is compared."""

DAY_SECONDS = 24 * 3600
_PRECISION = {8: DAY_SECONDS, 12: 60, 14: 1}
"""The seconds that share a time, by the number of its digits."""

_VERSION = re.compile(
    r"(?P<size>\d*):(?P<modified>\d*(?:\.\d+)?)(?:=(?P<exact>\d{14}))?"
    r"(?:#(?P<unique>[\w.:/+-]{1,64}))?(?P<mark>[~?]?)",
    re.ASCII,
)
_UNIQUE = re.compile(r"[\w.:/+-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a file.

    Attributes:
      size: The size in bytes; None if the server does not give it.
      modified: The time as the listing gives it; empty if it gives none.
      exact: The time to the second in UTC (MDTM), if the listing gives less. Default: empty.
      unique: The server's id of the file, if it gives one. Default: empty.
      mark: `REFETCH`, `RECHECK`, `GROWING` or empty. Default: empty.
    """

    size: int | None
    modified: str = ""
    exact: str = ""
    unique: str = ""
    mark: str = ""

    @classmethod
    def parse(cls, text: str | None) -> Version | None:
        """Return the version of a fingerprint; None if it is not the version of a file."""
        if not text:
            return None
        size, _, rest = text.partition(":")
        if rest == GROWING and size.isdecimal():
            return cls(int(size), mark=GROWING)
        match = _VERSION.fullmatch(text)
        if match is None:
            return None
        return cls(
            int(match["size"]) if match["size"] else None,
            match["modified"], match["exact"] or "", match["unique"] or "", match["mark"],
        )  # fmt: skip

    @property
    def text(self) -> str:
        """The fingerprint."""
        size = "" if self.size is None else self.size
        if self.mark == GROWING:
            return f"{size}:{GROWING}"
        exact = f"={self.exact}" if self.exact else ""
        unique = f"#{self.unique}" if _UNIQUE.fullmatch(self.unique) else ""
        return f"{size}:{self.modified}{exact}{unique}{self.mark}"

    @property
    def time(self) -> datetime | None:
        """The best known time, in UTC."""
        return timestamp(self.exact or self.modified)

    def is_same(self, listed: Stat) -> bool:
        """Return True if a listing shows this version, in the precision of the coarser one.

        LIST omits the time of day for old files.
        """
        if self.mark == GROWING or self.size != listed.size:
            return False
        digits = min(len(self.modified), len(listed.modified))
        if not digits:
            return self.modified == listed.modified
        return self.modified[:digits] == listed.modified[:digits]

    def is_current(self, listed: Stat, now: datetime) -> bool:
        """Return True if a listing proves that the file has not changed.

        Args:
          listed: The size and time in the listing.
          now: The current time in UTC.
        """
        if not self.is_same(listed):
            return False
        if self.mark == REFETCH:
            # A file that shows only its day is fetched again when the day is over. An exact time is
            # racy for some seconds only: vsftpd shows the day of a time that is ahead.
            is_day = precision(listed.modified) >= DAY_SECONDS and not self.exact
            return is_day and is_racy(listed.modified, now)
        if self.mark == RECHECK:
            moment = timestamp(listed.modified)
            return moment is None or now - moment > RECHECKED
        return True

    def may_be_current(self, listed: Stat) -> bool:
        """Return True if the file's exact time decides whether it has changed.

        The listed time is racy, or differs by a time zone: some servers show all times one hour
        later when the summer begins.
        """
        if not self.exact or self.size != listed.size or self.mark == REFETCH:
            return False
        if self.mark == RECHECK and self.is_same(listed):
            return True
        return not self.is_same(listed) and is_shifted(self.modified, listed.modified)


def is_same(known: str | None, listed: str) -> bool:
    """Return True if a stored version and a listed one are equal; see `Version.is_same`."""
    before, after = Version.parse(known), stat_of_version(listed)
    return before is not None and before.is_same(after)


def is_same_look(before: Stat, now: Stat) -> bool:
    """Return True if two looks show the same size and time.

    The second one may be by another command, whose times are exact, and in UTC. LIST often shows
    the server's local time.
    """
    if before.size != now.size:
        return False
    if Version(before.size, before.modified).is_same(now):
        return True
    if precision(now.modified) >= precision(before.modified):
        return False
    return is_shifted(before.modified, now.modified)


def is_shifted(before: str, after: str) -> bool:
    """Return True if two times differ by the difference of two time zones."""
    first, second = timestamp(before), timestamp(after)
    if first is None or second is None:
        return False
    seconds = abs((second - first).total_seconds())
    coarse = max(precision(before), precision(after))
    if coarse >= DAY_SECONDS:
        return seconds <= FURTHEST_ZONE.total_seconds() + DAY_SECONDS
    if seconds > FURTHEST_ZONE.total_seconds() + coarse:
        return False
    return (int(second.timestamp()) // coarse - int(first.timestamp()) // coarse) % (
        ZONE_SECONDS // coarse
    ) == 0


def stat_of_version(version: str) -> Stat:
    """Return the size and time of a listed version; see `Entry.version`."""
    size, _, modified = version.partition(":")
    return Stat(int(size) if size.isdecimal() else None, modified)


def precision(modified: str) -> int:
    """Return the number of seconds that share a time; 0 if the time is missing."""
    return _PRECISION.get(min(len(modified), 14), 0)


def is_racy(modified: str, now: datetime, settled: float = 0.0) -> bool:
    """Return True if a later change of the file may leave its time as it is.

    The server's clock has still the same second, or minute, as the file. The server's time zone
    is unknown, so times are compared modulo a quarter of an hour.

    Args:
      modified: The file's time in a listing.
      now: The time before the file was read, in UTC.
      settled: The seconds between the first look at this version and `now`. If they are more than
        the precision of the time, the clocks do not matter. Default: 0.
    """
    moment, seconds = timestamp(modified), precision(modified)
    if moment is None or settled > seconds:
        return False
    age = now - moment
    if not -FURTHEST_ZONE <= age <= FURTHEST_ZONE + timedelta(seconds=seconds):
        return False
    if seconds >= DAY_SECONDS:
        return True
    past = age.total_seconds() % ZONE_SECONDS
    return past <= seconds + SLACK_SECONDS or past >= ZONE_SECONDS - SLACK_SECONDS


def is_recent(modified: str, now: datetime) -> bool:
    """Return True if a file may have changed within the last hours, in any time zone."""
    moment = timestamp(modified)
    if moment is None:
        return True
    return now - moment <= FURTHEST_ZONE + timedelta(seconds=precision(modified))


def version_after(
    listed: Stat, now: Stat, exact: str, decides: str, began: datetime, settled: float
) -> Version:
    """Return the version of a file that was read completely.

    Args:
      listed: The size and time before the transfer.
      now: The same after it.
      exact: The exact time; empty if it is unknown.
      decides: The exact time before the transfer; empty if it is unknown.
      began: The time before the transfer.
      settled: The seconds from the first look at `listed` to `began`.
    """
    size = now.size if now.size is not None else listed.size
    is_finer = 0 < precision(now.modified) < precision(listed.modified)
    if is_finer:  # the listing's command did not give it
        exact = exact or now.modified
    if not is_same_look(listed, now):
        mark = REFETCH if is_recent(now.modified, began) else ""
        return Version(size, now.modified, exact, now.unique, mark)
    modified, mark = listed.modified if is_finer else now.modified, ""
    if is_racy(modified, began, settled):
        mark = REFETCH if not decides or is_racy(decides, began, settled) else RECHECK
    return Version(size, modified, exact, now.unique, mark)
