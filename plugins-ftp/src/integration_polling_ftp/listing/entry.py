"""The entries of a listing, their versions and their times."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from integration_polling_ftp import names

Kind = Literal["file", "directory", "link", "other"]

MAX_SIZE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory.

    Attributes:
      name: The name's bytes, decoded as latin-1.
      kind: `file`, `directory`, `link`, or `other` for names to ignore.
      size: The size in bytes; None if the server does not give it, or counts in other units.
      modified: The time of the last change in UTC: `YYYYMMDD`, with `HHMM` and `SS` as far as the
        server gives them. Default: empty.
      unique: The `unique` fact: a value that all names of the same file or directory share. None if
        the server does not give it.
      target: The target of a link, decoded as latin-1. Default: empty.
      encoding: The charset of the name. Default: `utf-8`.
    """

    name: str
    kind: Kind
    size: int | None = None
    modified: str = ""
    unique: str | None = None
    target: str = field(default="", compare=False)
    encoding: str = field(default="utf-8", compare=False)

    @property
    def version(self) -> str:
        """Size and time as `size:modified`: the fingerprint that decides about a download."""
        return f"{'' if self.size is None else self.size}:{self.modified}"

    @property
    def text(self) -> str:
        """The name as it is stored."""
        return names.to_text(self.name, self.encoding)


IGNORED = Entry("", "other")
"""A device, a heading or a summary: a readable line without a name to keep."""


def size_of(digits: str) -> int | None:
    """Return a size; separators of thousands are removed.

    A size is a hint. One with more than 63 bits means that the server does not know it: None.
    """
    plain = digits.translate({ord(mark): None for mark in ",.'\xa0"}).lstrip("0") or "0"
    if len(plain) > 19 or int(plain) > MAX_SIZE:
        return None
    return int(plain)


def timestamp(modified: str) -> datetime | None:
    """Return the time of a version in UTC; None if it is missing or invalid."""
    for form, length in (("%Y%m%d%H%M%S", 14), ("%Y%m%d%H%M", 12), ("%Y%m%d", 8)):
        if len(modified) >= length:
            try:
                return datetime.strptime(modified[:length], form).replace(tzinfo=UTC)
            except ValueError:
                return None
    return None
