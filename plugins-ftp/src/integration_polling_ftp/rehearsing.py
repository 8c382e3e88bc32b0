"""The rehearsal: one look at the server, one read, and the beginning of the tree that is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from core import IntegrationError, RateLimited, Rehearsal, RehearsalSection, Sample, TransientError
from integration_polling_ftp import names
from integration_polling_ftp.account import Config
from integration_polling_ftp.connection import Connection
from integration_polling_ftp.directory import Directory, read
from integration_polling_ftp.listing import Entry, timestamp
from integration_polling_ftp.selection import Selection
from integration_polling_ftp.versions import FURTHEST_ZONE, SLACK_SECONDS, precision

SECONDS = 15.0
"""The time for everything. The check before and this have 30 seconds together."""

LOGIN_TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 8
"""The timeout of a further login, and the number of connections that are opened."""

MAX_ENTRIES = 5_000
"""The number of entries of a directory that are read."""

MAX_LEVELS = 3
MAX_DIRECTORIES = 12
MAX_BRANCHES = 8
MAX_LINES = 50
"""Bounds of the tree: its levels, the directories that are listed, their names, and all lines."""

MAX_READ_BYTES = 1024**2
"""The size up to which a file is read as a trial."""

SHOWN_ENTRIES = 5


@dataclass(slots=True)
class Tree:
    """The beginning of the tree that is kept."""

    session: Connection
    selection: Selection
    until: float
    lines: list[Sample] = field(default_factory=list)
    omitted: int = 0
    listed: int = 0
    readable: tuple[str, Entry] | None = None

    def add(self, path: str, level: int = 0) -> Directory:
        """List a directory and, as far as the bounds allow, those below it."""
        found = read(self.session, path, "", links=False, most=MAX_ENTRIES)
        self.listed += 1
        self.selection.apply(found)
        self._choose(found)
        entries = [*sorted(found.directories.items()), *sorted(found.files.items())]
        room = max(0, min(MAX_BRANCHES, MAX_LINES - len(self.lines)))
        self.omitted += len(entries[room:])
        for number, (below, entry) in enumerate(entries[:room]):
            if len(self.lines) >= MAX_LINES:
                self.omitted += len(entries[number:room])
                break
            is_directory = entry.kind == "directory"
            self.lines.append(Sample(f"{names.base_name(below)}{'/' * is_directory}", level))
            if is_directory and level + 1 < MAX_LEVELS and self._has_room():
                self._below(below, level + 1)
        return found

    def _has_room(self) -> bool:
        has_time = time.monotonic() < self.until
        return self.listed < MAX_DIRECTORIES and len(self.lines) < MAX_LINES and has_time

    def _below(self, path: str, level: int) -> None:
        try:
            self.add(path, level)
        except IntegrationError as error:
            self.lines.append(Sample(f"({error})", level))

    def _choose(self, found: Directory) -> None:
        """Choose the smallest file with content for the trial."""
        for path, entry in found.files.items():
            size = entry.size or 0
            smallest = self.readable[1].size if self.readable else MAX_READ_BYTES + 1
            if path not in found.links and 0 < size < (smallest or 0):
                self.readable = (path, entry)


def rehearse(
    session: Connection, config: Config, root: str, connect: Callable[[Config], Connection]
) -> Rehearsal:
    """Describe the server and the beginning of the copy.

    Args:
      session: The connection.
      config: The account's config.
      root: The path of the root as it is stored.
      connect: Returns a further connection, which is not open yet.

    Raises:
      IntegrationError: The root cannot be listed.
    """
    until = time.monotonic() + SECONDS
    warnings: list[str] = []
    tree = Tree(session, Selection(config, root), until)
    found = tree.add(root)
    server = dict(session.description())
    server["Times in listings"] = _times(session, found, warnings)
    server["Connections"] = _connections(config, connect, until, warnings)
    if config.protocol == "ftp":
        warnings.append("The connection is not encrypted. Anyone on the way can read the password.")
    if not tree.lines:
        warnings.append("The directory is empty, or the selection leaves out all of it.")
    return Rehearsal(
        [
            RehearsalSection("Server", server),
            RehearsalSection("Listing", _listing(root, found), list(_entries(found))),
            *_trial(session, tree, warnings),
            RehearsalSection("Copy", {}, tree.lines, tree.omitted),
        ],
        warnings,
    )


def _listing(root: str, found: Directory) -> dict[str, str | int]:
    more = " (the first ones)" if found.is_portion else ""
    return {
        "Directory": root,
        "Entries": f"{found.size:,}{more}",
        "Left out": sum(found.skipped.values()),
        "Unreadable lines": len(found.unreadable),
    }


def _entries(found: Directory) -> Iterator[Sample]:
    """Yield some entries as the plugin understands them."""
    entries = [*found.files.items(), *found.directories.items()][:SHOWN_ENTRIES]
    for path, entry in entries:
        size = "no size" if entry.size is None else f"{entry.size:,} bytes"
        moment = timestamp(entry.modified)
        shown = "no time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
        facts = [entry.kind, size, shown] if entry.kind != "directory" else [entry.kind, shown]
        yield Sample(f"{names.base_name(path)}: {', '.join(facts)}")


def _times(session: Connection, found: Directory, warnings: list[str]) -> str:
    """Compare times in the listing with exact ones, and the newest one with the clock."""
    files = {path: entry for path, entry in found.files.items() if timestamp(entry.modified)}
    if not files:
        return "none"
    newest = max(files, key=lambda path: files[path].modified)
    digits = precision(files[newest].modified)
    text = {1: "to the second", 60: "to the minute"}.get(digits, "to the day")
    listed = exact = timestamp(files[newest].modified)
    if digits > 1 and newest not in found.links:
        exact = timestamp(session.times([newest]).get(newest, "")) or listed
    if listed is None or exact is None:
        return text
    if digits == 60 and (offset := round((listed - exact.replace(second=0)).total_seconds() / 60)):
        text = f"{text}, {_hours(timedelta(minutes=offset))} from UTC; MDTM gives exact times"
    ahead = exact - datetime.now(UTC)
    if timedelta(seconds=SLACK_SECONDS) < ahead < FURTHEST_ZONE:
        warnings.append(
            f"The newest file is {_hours(ahead)} ahead of this computer's clock. The server's clock"
            " or time zone is wrong, or this computer's. Times may be off by this much."
        )
    return text


def _hours(difference: timedelta) -> str:
    minutes = round(difference.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60}:{abs(minutes) % 60:02} h"


def _connections(
    config: Config,
    connect: Callable[[Config], Connection],
    until: float,
    warnings: list[str],
) -> str:
    """Open connections until the server refuses one. The first one is open already."""
    wanted = min(config.max_connections, MAX_CONNECTIONS)
    short = config.model_copy(
        update={"timeout_seconds": min(config.timeout_seconds, LOGIN_TIMEOUT_SECONDS)}
    )
    opened: list[Connection] = []
    try:
        while len(opened) + 1 < wanted:
            if time.monotonic() + (opened[-1].login_seconds if opened else 0) > until:
                return f"at least {len(opened) + 1} at a time"
            another = connect(short)
            opened.append(another)
            try:
                another.ping()
            except (RateLimited, TransientError) as error:
                allowed = len(opened)
                if isinstance(error, RateLimited):
                    warnings.append(
                        f"The server allows {allowed} connections at a time. Set max_connections to"
                        f" {allowed}; it is {config.max_connections}."
                    )
                return f"{allowed} at a time: {error}"
    finally:
        for each in opened:
            each.close()
    return f"at least {wanted} at a time"


def _trial(session: Connection, tree: Tree, warnings: list[str]) -> Iterator[RehearsalSection]:
    """Read one small file."""
    if tree.readable is None:
        return
    path, entry = tree.readable
    received = [0]

    def count(block: memoryview) -> None:
        received[0] += len(block)

    try:
        session.retrieve(path, count)
    except IntegrationError as error:
        warnings.append(f"The server does not send the file {path}: {error}")
        return
    yield RehearsalSection("Trial", {"File": path, "Bytes": received[0], "Listed": entry.size or 0})
