"""One directory: its entries by kind, or a portion of them if they are many."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from core import MAX_ID_BYTES, PermanentError
from integration_polling_ftp import names
from integration_polling_ftp.connection import CUT, Connection
from integration_polling_ftp.listing import Entry

PORTION = 50_000
"""The number of entries of a directory that one task works on."""

SPECIAL = "neither file nor directory"
"""The reason for devices, sockets and pipes."""

MAX_UNREADABLE = 100
"""The number of unreadable lines that are kept, to report them."""


@dataclass(slots=True)
class Directory:
    """The entries of a directory, by path.

    Attributes:
      path: The path of the directory.
      files, directories: The entries of each kind. Links to files are files.
      links: The paths of the files that are links.
      others: The paths of entries that are neither.
      unreadable: Lines that cannot be read, at most `MAX_UNREADABLE`.
      skipped: The numbers of entries that are left out, by reason.
      after: The last name of this portion, if there are more; otherwise empty.
      is_portion: True if this is not the first portion, or not the last one.
      size: The number of entries of the complete directory.
      digest: A hash of all entries.
      is_mlsd: True if the listing follows links, so that it does not show them.
    """

    path: str
    files: dict[str, Entry] = field(default_factory=dict)
    directories: dict[str, Entry] = field(default_factory=dict)
    links: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    after: str = ""
    is_portion: bool = False
    size: int = 0
    digest: str = ""
    is_mlsd: bool = False

    @property
    def is_complete(self) -> bool:
        """True if every line was readable."""
        return not self.unreadable

    def names(self) -> set[str]:
        """Return the paths of all entries."""
        return {*self.files, *self.directories, *self.links, *self.others}

    def raise_if_unreadable(self) -> None:
        """Check that at least a part of the listing was readable.

        Raises:
          PermanentError: No line was readable; the message has the first one.
        """
        if self.unreadable and not (self.files or self.directories or self.others):
            raise PermanentError(
                f"cannot read the listing of {self.path}: {self.unreadable[0][:200]!r}"
            )


def read(
    session: Connection, path: str, after: str, *, links: bool = True, most: int = 0
) -> Directory:
    """List a directory.

    Args:
      session: The connection.
      path: The path of the directory.
      after: Only names behind this one. Empty for all.
      links: False to leave links as they are listed. Default: True, which asks for the size and the
        time of their targets.
      most: Read this number of entries only. Default: all.

    Returns:
      The directory, or its next `PORTION` entries in the order of their names.

    Raises:
      Missing: The directory does not exist, or reading it is not permitted.
      TransientError: The connection broke, or the listing exceeds a bound.
    """
    found = Directory(path, is_portion=bool(after), is_mlsd=session.lists_facts)
    kept: list[Entry] = []
    for entry in _entries(session, found):
        if session.text(entry) > after:
            kept.append(entry)
        if most and len(kept) >= most:
            found.is_portion = True
            break
        if len(kept) >= 2 * PORTION:
            kept = _first(session, kept, found)
    if len(kept) > PORTION:
        kept = _first(session, kept, found)
    if after:
        found.skipped.clear()  # the first portion counted them
    for entry in kept:
        _add(found, entry, session.text(entry))
    if links:
        _follow_links(session, found)
    return found


def _entries(session: Connection, found: Directory) -> Iterator[Entry]:
    """Yield the entries with safe names, and note the others."""
    digest = hashlib.blake2b(digest_size=8)
    for entry in session.entries(found.path):
        if isinstance(entry, str):
            found.skipped[CUT if entry == CUT else "unreadable line in a listing"] += 1
            if len(found.unreadable) < MAX_UNREADABLE:
                found.unreadable.append(entry)
        elif session.is_safe(entry):
            found.size += 1
            digest.update(f"{entry.name}/{entry.kind}/{entry.version}\n".encode())
            yield entry
        elif entry.kind != "other" and entry.name not in (".", ".."):
            found.skipped["unsafe name"] += 1
    found.digest = digest.hexdigest()


def _first(session: Connection, entries: list[Entry], found: Directory) -> list[Entry]:
    """Return the first `PORTION` entries by name."""
    entries.sort(key=session.text)
    found.after, found.is_portion = session.text(entries[PORTION - 1]), True
    return entries[:PORTION]


def _add(found: Directory, entry: Entry, name: str) -> None:
    path = names.join(found.path, name)
    if path in found.files or path in found.directories or path in found.others:
        found.skipped["listed more than once"] += 1
    elif len(path.encode()) > MAX_ID_BYTES:
        found.skipped["path too long"] += 1
    elif entry.kind == "directory":
        found.directories[path] = entry
    elif entry.kind in ("file", "link"):
        found.files[path] = entry
        if entry.kind == "link":
            found.links.add(path)
    else:
        found.others.add(path)
        found.skipped[SPECIAL] += 1


def _follow_links(session: Connection, found: Directory) -> None:
    """Give links the size and time of their targets. Skip links to directories: they may cycle."""
    for path in sorted(found.links):
        stat = session.follow(path)
        kind = session.target_kind(path) if stat.size is None else "file"
        if kind != "file":
            del found.files[path]
            found.links.discard(path)
            found.others.add(path)
            found.skipped["link to a directory" if kind == "directory" else SPECIAL] += 1
        elif stat.size is not None:
            link = found.files[path]
            found.files[path] = replace(
                link, kind="file", size=stat.size, modified=stat.modified or link.modified
            )
