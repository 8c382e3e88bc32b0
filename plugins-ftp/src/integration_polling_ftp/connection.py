"""The interface of a connection: everything above it is the same for every protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from core import IntegrationError
from integration_polling_ftp.listing import Entry, Kind

CUT = "the server ended the listing at its limit"
"""Follows the entries of a listing that the server cut, as pure-ftpd does after 10,000 entries."""

Write = Callable[[memoryview], object]
Job = tuple[str, Write]
"""A file to fetch: its path as it is stored, and the receiver of its bytes."""


@dataclass(frozen=True, slots=True)
class Stat:
    """The server's current size and time of a file: hints, which may be missing or wrong.

    Attributes:
      size: The size in bytes; None if the server does not give it.
      modified: The time as `YYYYMMDDHHMMSS` in UTC; empty if the server does not give it.
      unique: The server's id of the file; empty if it does not give one.
    """

    size: int | None = None
    modified: str = ""
    unique: str = ""

    @property
    def version(self) -> str:
        """Size and time, in the form of `Entry.version`."""
        return f"{'' if self.size is None else self.size}:{self.modified}"


def stat_of(entry: Entry) -> Stat:
    """Return the size, the time and the id in a listing."""
    return Stat(entry.size, entry.modified, entry.unique or "")


class Connection(Protocol):
    """A connection to the server of one account, opened on first use.

    Paths are in the form that the database stores (see `names`). Methods raise the engine's
    exceptions. The first step of an operation reopens a lost connection; a loss after it fails the
    operation with `Dropped`. A path that the server refuses is `Missing` or another
    `PermanentError`.
    """

    @property
    def login_seconds(self) -> float:
        """The duration of the latest login; 0 before the first one."""
        ...

    @property
    def round_trip(self) -> float:
        """The shortest time from a request to its reply in that login, in seconds."""
        ...

    @property
    def lists_facts(self) -> bool:
        """True if listings show the targets of links instead of links."""
        ...

    def close(self) -> None:
        """Close the connection, if it is open."""

    def ping(self) -> None:
        """Check that the server answers, over a new connection and login if there is none."""

    def description(self) -> dict[str, str]:
        """Return facts about the server for people, by their labels."""
        ...

    def home(self) -> str:
        """Return the path of the directory after the login, as it is stored."""
        ...

    def enter(self, path: str) -> None:
        """Check that a directory exists, and can be entered."""

    def text(self, entry: Entry) -> str:
        """Return the name of an entry as it is stored."""
        ...

    def is_safe(self, entry: Entry) -> bool:
        """Return True if a request can name an entry."""
        ...

    def entries(self, path: str) -> Iterator[Entry | str]:
        """List a directory; a text is a line that cannot be read, or `CUT` at the end."""
        ...

    def kinds(self, path: str) -> dict[str, Kind]:
        """Return the kinds of the names in a directory, links included."""
        ...

    def target_kind(self, path: str) -> Kind:
        """Return the kind of a path, or of a link's target."""
        ...

    def unique(self, path: str) -> str | None:
        """Return an id that all paths of a directory share; None if the server gives none."""
        ...

    def stat(self, path: str) -> Stat:
        """Return the size and time of a file."""
        ...

    def stats(self, paths: Sequence[str]) -> dict[str, Stat]:
        """Return the sizes and times of files."""
        ...

    @property
    def source(self) -> str:
        """The command that gives the times in listings: `MLSD`, `LIST` or `SFTP`."""
        ...

    def times(self, paths: Sequence[str]) -> dict[str, str]:
        """Return exact times of files as `YYYYMMDDHHMMSS` in UTC, where listings may lack them."""
        ...

    def follow(self, path: str) -> Stat:
        """Return the size and time of a file or of a link's target."""
        ...

    @property
    def hash_algorithm(self) -> str:
        """The algorithm of `hash`; empty if the server does not compute hashes."""
        ...

    def hash(self, path: str, size: int) -> str:
        """Return the server's hash of a file as `algorithm:digits`; empty if it gives none."""
        ...

    def retrieve(self, path: str, write: Write, offset: int = 0) -> None:
        """Pass the bytes of a file from an offset on to `write`."""

    def retrieve_many(self, jobs: Iterable[Job]) -> Iterator[tuple[str, IntegrationError | None]]:
        """Fetch files without waiting between them; see `Client.retrieve_many`."""
        ...
