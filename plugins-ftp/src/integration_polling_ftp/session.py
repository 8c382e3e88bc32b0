"""The session of an account over FTP: listings, facts of paths, and contents of files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from core import (
    ConfigurationError,
    CredentialsInvalid,
    IntegrationError,
    PermanentError,
    RateLimited,
    TransientError,
)
from integration_polling_ftp import names
from integration_polling_ftp.account import Config, Credentials
from integration_polling_ftp.client import Client
from integration_polling_ftp.connection import CUT, Job, Stat, Write, stat_of
from integration_polling_ftp.control import Reply
from integration_polling_ftp.errors import NOT_IMPLEMENTED, Dropped, Empty, Unsupported, meaning
from integration_polling_ftp.listing import (
    Entry,
    Kind,
    Unreadable,
    parse_facts,
    parse_listing,
    read_facts,
    read_lines,
)
from integration_polling_ftp.listing.lines import DECIDING_BYTES, line_end
from integration_polling_ftp.listing.summary import is_summary

MAX_LINE_BYTES = 16 * 1024
"""The maximum size of a line of a listing."""

MAX_HEADINGS = 20
"""The number of lines before the first entry of a listing."""

MAX_LISTING_BYTES = 2 * 1024**3
"""The maximum size of a listing."""

_TIME = re.compile(r"\d{14}", re.ASCII)
_QUOTED = re.compile(r'".*"')
_HOME = re.compile(r'257[ -]"((?:[^"]|"")*)"')

FINAL = (Dropped, RateLimited, ConfigurationError, CredentialsInvalid)
"""Errors of the connection. Another form of the command does not help."""

STATS = 32
"""The number of files whose facts are requested in one packet."""


class Session:
    """An FTP session of one account (RFC 959).

    Paths are in the form that the database stores (see `names`). Methods raise the engine's
    exceptions. The first command of an operation reopens a lost connection; a loss after it fails
    the operation.
    """

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._client = Client(config, credentials)
        self._encoding = config.encoding
        self._list = "LIST -a"
        self._is_cut = False
        self._has_times = True
        self._dialect = ""
        self._protocol = {"ftp": "FTP", "ftps": "FTPS"}.get(config.protocol, "implicit FTPS")
        self._directory = ""  # the current one, in latin-1

    @property
    def login_seconds(self) -> float:
        """The duration of the latest login; 0 before the first one."""
        return self._client.login_seconds

    @property
    def round_trip(self) -> float:
        """The shortest time from a request to its reply in that login, in seconds."""
        return self._client.round_trip

    def close(self) -> None:
        """Close the connection, if it is open."""
        self._client.close()

    def ping(self) -> None:
        """Send `NOOP`, over a new connection and login if there is none.

        Raises:
          Dropped: The server does not answer.
        """
        self._client.begin("NOOP")

    def description(self) -> dict[str, str]:
        """Return the protocol, the greeting, the features and the form of listings."""
        server = self._client.opened()
        form = "MLSD" if self.lists_facts else f"LIST ({self._dialect or 'empty'})"
        return {
            "Protocol": self._protocol,
            "Software": server.greeting or "unknown",
            "Features": ", ".join(sorted(server.features)) or "none announced",
            "Form of listings": form,
        }

    def home(self) -> str:
        """Return the directory after the login; `/` if the server does not name it as a path.

        The reply is in appendix II of RFC 959.

        Raises:
          Dropped: The server does not answer.
        """
        found = _HOME.match(self._client.first("PWD").text)
        path = found[1].replace('""', '"') if found else ""
        return names.to_text(path, self._encoding) if path.startswith("/") else "/"

    def enter(self, path: str) -> None:
        """Make a directory the current one.

        Raises:
          Missing: The directory does not exist, or entering it is not permitted.
        """
        self._client.begin(f"CWD {self.wire(path)}")
        self._directory = self.wire(path)

    def wire(self, path: str) -> str:
        """Return the latin-1 form of a stored path, for commands."""
        return self._client.wire(path)

    def text(self, entry: Entry) -> str:
        """Return the name of an entry as it is stored."""
        return entry.text

    def is_safe(self, entry: Entry) -> bool:
        """Return True if commands can name an entry."""
        return names.is_safe(entry.name, newlines=self._client.opened().control.takes_newlines)

    # Listings

    def entries(self, path: str) -> Iterator[Entry | str]:
        """List a directory; a text is a line that cannot be read, or `CUT` at the end.

        The names are not checked: a caller must test them with `is_safe`.

        Raises:
          Missing: The directory does not exist, or reading it is not permitted.
          TransientError: The connection broke, or the listing exceeds a bound.
        """
        self._client.prepare(f"CWD {self.wire(path)}", "TYPE A")
        self._directory = self.wire(path)
        self._is_cut = False
        prefixes = (f"{self._directory.rstrip('/')}/", "./")
        for each in self._listed(path):
            yield each.line if isinstance(each, Unreadable) else _without_prefix(each, prefixes)
        if self._is_cut:
            yield CUT

    def _listed(self, path: str) -> Iterator[Entry | Unreadable]:
        """Yield a listing line by line, so that memory does not grow with it."""
        encoding = self._encoding
        if self.lists_facts:
            try:
                yield from _with_facts(read_facts(self._lines("MLSD"), encoding=encoding))
                return
            except Unsupported:
                self._client.opened().features -= {"MLST"}
        now = datetime.now(UTC)
        try:
            yield from read_lines(self._list_lines(), now=now, encoding=encoding, voted=self._note)
        except Unsupported:
            yield from self._named(path)

    def _note(self, dialect: str) -> None:
        self._dialect = dialect

    def _named(self, path: str) -> Iterator[Entry]:
        """List a directory of a server that has `NLST` only: each name costs further commands."""
        found = [line.decode("latin-1").rpartition("/")[2] for line in self._lines("NLST")]
        for name in found:
            entry = Entry(name, "file", encoding=self._encoding)
            if self.is_safe(entry):
                place = names.join(path, entry.text)
                stat = self.follow(place)
                kind: Kind = (
                    "directory" if stat.size is None and self.is_directory(place) else "file"
                )
                entry = replace(entry, kind=kind, size=stat.size, modified=stat.modified)
            yield entry

    def _list_lines(self) -> Iterator[bytes]:
        """Yield the lines of `LIST -a`; those of `LIST` if the server takes `-a` for a name."""
        headings: list[bytes] = []
        is_empty = True
        try:
            for line in self._lines(self._list):
                if is_empty and len(headings) < MAX_HEADINGS and _is_heading(line, headings):
                    headings.append(line)
                    continue
                if is_empty:
                    yield from headings
                is_empty = False
                yield line
        except IntegrationError as error:
            if isinstance(error, FINAL) or self._list == "LIST" or not is_empty:
                raise
        if is_empty and self._list != "LIST":
            headings = []
            for line in self._lines("LIST"):
                if not _is_heading(line, headings):
                    self._list = "LIST"
                headings = [line]
                yield line

    def _lines(self, command: str) -> Iterator[bytes]:
        """Yield the lines of a listing, without holding all of them."""
        if not self._client.is_prepared:
            with suppress(Unsupported):
                self._client.send("TYPE A")
        rest, size, end = b"", 0, b""
        try:
            for block in self._transfer(command):
                rest, size = rest + block, size + len(block)
                if not end and len(rest) >= DECIDING_BYTES:
                    end = line_end(rest)
                if end:
                    *lines, rest = rest.split(end)
                    yield from (line.removesuffix(b"\r") for line in lines)
                if len(rest) > MAX_LINE_BYTES:
                    raise TransientError(f"a line of the listing has over {MAX_LINE_BYTES:,} bytes")
                if size > MAX_LISTING_BYTES:
                    raise TransientError(f"the listing has over {MAX_LISTING_BYTES:,} bytes")
        except Empty:
            return
        *lines, rest = rest.split(end or line_end(rest))
        yield from (line.removesuffix(b"\r") for line in lines)
        if rest:
            self._check_end(command, size)
            yield rest.removesuffix(b"\r")

    def _transfer(self, command: str) -> Iterator[memoryview]:
        """Yield the bytes of a listing of the current directory.

        vsftpd replies 226 for a directory that it cannot read, pure-ftpd for a part of one.
        """
        about = f"{command.partition(' ')[0]} {self._directory}"
        reply = yield from self._client.transfer(command, about=about)
        text = _QUOTED.sub("", reply.text)  # other servers name the directory
        if "(but failed to open directory)" in text:
            raise meaning(f"550{reply.text[3:]}")
        self._is_cut = "Output truncated" in text

    def _check_end(self, command: str, size: int) -> None:
        """Check a listing whose last line has no end: a cut connection may look like its end.

        Some servers omit the last line end, so a second listing decides.

        Raises:
          Dropped: The second listing has another size.
        """
        if sum(len(block) for block in self._transfer(command)) != size:
            self.close()
            raise Dropped("the listing ended within a line")

    @property
    def lists_facts(self) -> bool:
        """True if the server has MLSD, which shows the targets of links instead of links."""
        return self._client.supports("MLST")

    def kinds(self, path: str) -> dict[str, Kind]:
        """Return the kinds of the names in a directory, as `LIST` shows them.

        MLSD follows links, and ProFTPD's shows pipes and sockets as files.

        Raises:
          Missing: The directory does not exist, or reading it is not permitted.
        """
        self.enter(path)
        now = datetime.now(UTC)
        found = parse_listing(self._list_lines(), now=now, encoding=self._encoding)
        return {self.text(entry): entry.kind for entry in found.entries}

    # Facts of one path

    def is_directory(self, path: str) -> bool:
        """Return True if a path can be entered."""
        try:
            self.enter(path)
        except PermanentError:
            return False
        return True

    def target_kind(self, path: str) -> Kind:
        """Return `directory` if a path can be entered, and otherwise `file`."""
        return "directory" if self.is_directory(path) else "file"

    def unique(self, path: str) -> str | None:
        """Return the server's unique id of a directory, equal for all its paths, or None."""
        if not self._client.supports("MLST"):
            return None
        facts = self._facts(path)
        return facts.unique if facts is not None else None

    def stat(self, path: str) -> Stat:
        """Return the size and time of a file, as far as the server gives them."""
        if self._client.supports("MLST") and (facts := self._facts(path)) is not None:
            return stat_of(facts)
        return self.follow(path)

    def stats(self, paths: Sequence[str]) -> dict[str, Stat]:
        """Return the sizes and times of files; see `stat`.

        Servers of `IN_SEQUENCE` get the commands for many files in one packet.
        """
        if not self._client.opened().pipelines:
            return {path: self.stat(path) for path in paths}
        self._client.begin("TYPE I")
        commands = ["MLST"] if self._client.supports("MLST") else ["SIZE", "MDTM"]
        found: dict[str, Stat] = {}
        for first in range(0, len(paths), STATS):
            portion = paths[first : first + STATS]
            sent = [f"{command} {self.wire(path)}" for path in portion for command in commands]
            replies = iter(self._client.ask_many(sent))
            for path in portion:
                if commands == ["MLST"]:
                    facts = _facts(next(replies))
                    found[path] = stat_of(facts) if facts else Stat()
                else:
                    found[path] = _stat(_value(next(replies)), _value(next(replies)))
        return found

    @property
    def source(self) -> str:
        """`MLSD` or `LIST`: the command that gives the times in listings."""
        return "MLSD" if self.lists_facts else "LIST"

    def times(self, paths: Sequence[str]) -> dict[str, str]:
        """Return the exact times of files (MDTM, RFC 3659), as far as the server gives them."""
        found: dict[str, str] = {}
        if not paths or not self._has_times:
            return found
        portion = STATS if self._client.opened().pipelines else 1
        for first in range(0, len(paths), portion):
            asked = paths[first : first + portion]
            commands = [f"MDTM {self.wire(path)}" for path in asked]
            if portion == 1:
                replies = [self._client.first(commands[0])]
            else:
                replies = self._client.ask_many(commands)
            found |= {
                path: modified[:14]
                for path, reply in zip(asked, replies, strict=True)
                if _TIME.match(modified := _value(reply))
            }
            if not found and replies[0].code in NOT_IMPLEMENTED:
                self._has_times = False
                break
        return found

    def follow(self, path: str) -> Stat:
        """Return the size and time of a file or of a link's target, with SIZE and MDTM (RFC 3659).

        Both are hints: a server may refuse them for a file that it sends.
        """
        self._client.begin("TYPE I")
        size = self._client.ask(f"SIZE {self.wire(path)}")
        return _stat(_value(size), _value(self._client.ask(f"MDTM {self.wire(path)}")))

    def _facts(self, path: str) -> Entry | None:
        return _facts(self._client.first(f"MLST {self.wire(path)}"))

    # Hashes

    @property
    def hash_algorithm(self) -> str:
        """The algorithm of `hash`; empty if the server does not compute hashes."""
        return self._client.hash_algorithm

    def hash(self, path: str, size: int) -> str:
        """Return the server's hash of a file; see `Client.hash`."""
        return self._client.hash(path, size)

    # Transfers

    def retrieve(self, path: str, write: Write, offset: int = 0) -> None:
        """Pass the bytes of a file to `write`.

        Args:
          path: The file's path as it is stored.
          write: Receives views of at most 256 KiB, valid during the call.
          offset: The number of bytes to skip (`REST`, RFC 3659). Default: 0.

        Raises:
          Missing: The file does not exist, or reading it is not permitted.
          Unsupported: The server does not support offsets.
        """
        self._client.begin("TYPE I")
        for block in self._client.transfer(f"RETR {self.wire(path)}", offset):
            write(block)

    def retrieve_many(self, jobs: Iterable[Job]) -> Iterator[tuple[str, IntegrationError | None]]:
        """Fetch files one after another; see `Client.retrieve_many`."""
        return self._client.retrieve_many(jobs)


def _with_facts(found: Iterator[Entry | Unreadable]) -> Iterator[Entry | Unreadable]:
    """Yield the entries of a listing of MLSD.

    A server may send names without facts (RFC 3659, section 7.2). They do not say which of them
    are directories.

    Raises:
      Unsupported: No line has facts. At least one line was read.
    """
    unreadable: list[Unreadable] = []
    for each in found:
        if isinstance(each, Entry):
            yield from unreadable
            yield each
            yield from found
            return
        if len(unreadable) < MAX_HEADINGS:
            unreadable.append(each)
    if unreadable:
        raise Unsupported("the listing of MLSD has no facts")


def _is_heading(line: bytes, before: Sequence[bytes]) -> bool:
    """Return True if a line names no file, such as a total."""
    return is_summary(line.decode("latin-1"), is_first=not before)


def _without_prefix(entry: Entry, prefixes: Iterable[str]) -> Entry:
    """Return an entry without the path of its directory, which some servers repeat in each name."""
    if "/" in entry.name:
        for prefix in prefixes:
            if entry.name.startswith(prefix):
                return replace(entry, name=entry.name.removeprefix(prefix))
    return entry


def _value(reply: Reply) -> str:
    """Return the value of a `213` reply; empty if the server refused the command."""
    return reply.text[3:].strip() if reply.code == "213" else ""


def _stat(size: str, modified: str) -> Stat:
    """Return the values of SIZE and MDTM."""
    return Stat(int(size) if size.isdecimal() else None, modified[:14])


def _facts(reply: Reply) -> Entry | None:
    """Return the entry in a reply to MLST; None if the server refused the command."""
    lines = reply.text.split("\n")[1:-1] if reply.code == "250" else []
    facts = (parse_facts(line.lstrip().removeprefix("250-")) for line in lines)
    return next(filter(None, facts), None)
