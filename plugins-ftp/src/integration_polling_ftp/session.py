"""The control connection, opened on demand and reopened after the server has closed it."""

from __future__ import annotations

import ftplib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from core import IntegrationError, PermanentError, TransientError
from integration_polling_ftp import names
from integration_polling_ftp.account import Config, Credentials
from integration_polling_ftp.errors import Dropped, Empty, Unsupported, translated
from integration_polling_ftp.listing import Entry, Unreadable, parse_facts, read_facts, read_lines

BLOCK = 64 * 1024
MAX_LINE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Stat:
    """The server's current size and time of a file.

    Attributes:
      size: The size in bytes; None if the server does not give it.
      modified: The time as `YYYYMMDDHHMMSS` in UTC; empty if the server does not give it.
    """

    size: int | None
    modified: str

    @property
    def is_exact(self) -> bool:
        """True if an equal value proves that the file is unchanged: a transfer may resume."""
        return self.size is not None and bool(self.modified)

    def __str__(self) -> str:
        return f"{self.size}:{self.modified}"


class Session:
    """An FTP session of one account (RFC 959).

    Paths are in the form that the database stores (see `names`). Methods raise the engine's
    exceptions. The first command of an operation reopens a lost connection; a loss after it fails
    the task.
    """

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._config = config
        self._username = credentials.username
        self._password = credentials.password.get_secret_value()
        self._ftp: ftplib.FTP | None = None
        self._features: frozenset[str] = frozenset()

    def close(self) -> None:
        """Close the connection, if it is open."""
        ftp, self._ftp = self._ftp, None
        if ftp is not None:
            with suppress(OSError):
                ftp.close()

    def ping(self) -> None:
        """Send `NOOP`, over a new connection and login if there is none.

        Raises:
          Dropped: The server does not answer.
        """
        self._begin("NOOP")

    def enter(self, path: str) -> None:
        """Make a directory the current one.

        Raises:
          Missing: The directory does not exist, or entering it is not permitted.
        """
        self._begin(f"CWD {names.to_wire(path, self._config.encoding)}")

    def entries(self, path: str) -> Iterator[Entry | None]:
        """List a directory; None stands for an unreadable line.

        The names are not checked: a caller must test them with `names.is_safe`.

        Raises:
          Missing: The directory does not exist, or reading it is not permitted.
          TransientError: The connection broke, or a line is longer than 16 KiB.
        """
        self.enter(path)
        if "MLST" in self._features:
            try:
                yield from map(_entry, self._listed("MLSD"))
                return
            except Unsupported:
                self._features -= {"MLST"}
        yield from map(_entry, self._listed("LIST"))

    def _listed(self, command: str) -> Iterator[Entry | Unreadable]:
        """Yield a directory's entries. Some servers refuse to list an empty directory."""
        encoding = self._config.encoding
        with suppress(Empty):
            if command == "MLSD":
                yield from read_facts(self._lines(command), encoding=encoding)
            else:
                now = datetime.now(UTC)
                yield from read_lines(self._lines(command), now=now, encoding=encoding)

    def unique(self, path: str) -> str | None:
        """Return the server's unique id of a directory, equal for all its paths, or None."""
        return self._facts(path).unique if self._supports("MLST") else None

    def stat(self, path: str) -> Stat:
        """Return the size and time of a file.

        Raises:
          Missing: The file does not exist.
        """
        if self._supports("MLST"):
            facts = self._facts(path)
            return Stat(facts.size, facts.modified)
        return self.follow(path)

    def follow(self, path: str) -> Stat:
        """Return the size and time of a file or of a link's target, with SIZE and MDTM (RFC 3659).

        Raises:
          Missing: The path does not exist, or is a directory.
        """
        self._begin("TYPE I")
        size = self._ask(f"SIZE {names.to_wire(path, self._config.encoding)}")
        modified = self._ask(f"MDTM {names.to_wire(path, self._config.encoding)}")
        return Stat(int(size) if size.isdecimal() else None, modified)

    def retrieve(self, path: str, write: Callable[[bytes], object], offset: int = 0) -> None:
        """Pass the bytes of a file to `write`.

        Args:
          path: The file's path as it is stored.
          write: Receives blocks of at most 64 KiB.
          offset: The number of bytes to skip (`REST`, RFC 3659). Default: 0.

        Raises:
          Missing: The file does not exist, or reading it is not permitted.
          Unsupported: The server does not support offsets.
        """
        self._begin("TYPE I")
        for block in self._transfer(f"RETR {names.to_wire(path, self._config.encoding)}", offset):
            write(block)

    # Commands

    def _begin(self, command: str) -> str:
        """Send an operation's first command, over a new connection if the current one is lost."""
        if self._ftp is not None:
            with suppress(Dropped):
                return self._send(command)
            self.close()
        self._open()
        return self._send(command)

    def _send(self, command: str) -> str:
        assert self._ftp is not None
        with translated(self._password):
            return self._ftp.voidcmd(command)

    def _ask(self, command: str) -> str:
        """Return the value of a `213` reply; empty if the server does not support the command."""
        try:
            return self._send(command)[3:].strip()
        except Unsupported:
            return ""

    def _supports(self, feature: str) -> bool:
        if self._ftp is None:
            self._open()
        return feature in self._features

    def _facts(self, path: str) -> Entry:
        lines = self._begin(f"MLST {names.to_wire(path, self._config.encoding)}").splitlines()
        facts = next((parse_facts(line.lstrip()) for line in lines if line.startswith(" ")), None)
        if facts is None:
            raise TransientError(f"the reply to MLST has no facts: {lines[:1]}")
        return facts

    # The connection

    def _open(self) -> None:
        # Plain FTP is the purpose of this plugin.
        ftp = ftplib.FTP(timeout=self._config.timeout_seconds, encoding="latin-1")  # noqa: S321
        try:
            with translated(self._password):
                ftp.connect(self._config.host, self._config.port)
                ftp.login(_wire(self._username), _wire(self._password))
                self._features = _features(ftp)
                _prefer(ftp, self._features)
        except IntegrationError:
            ftp.close()
            raise
        self._ftp = ftp

    def _transfer(self, command: str, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a data connection.

        After an interruption, later replies cannot be matched to commands, so the session is
        closed.
        """
        ftp = self._ftp
        assert ftp is not None
        with translated(self._password):
            data = ftp.transfercmd(command, offset or None)
            try:
                with closing(data):
                    while block := data.recv(BLOCK):
                        yield block
                reply = ftp.voidresp()
            except BaseException:
                self.close()
                raise
        if "fail" in reply.lower():  # vsftpd replies 226 for a directory that it cannot read
            raise PermanentError(reply)

    def _lines(self, command: str) -> Iterator[str]:
        """Yield the lines of a listing, split at LF only, without holding all of them."""
        self._send("TYPE A")
        rest = b""
        for block in self._transfer(command):
            *lines, rest = (rest + block).split(b"\n")
            yield from map(_line, lines)
            if len(rest) > MAX_LINE_BYTES:
                raise TransientError(f"a line of the listing has over {MAX_LINE_BYTES:,} bytes")
        if rest:
            yield _line(rest)


def _features(ftp: ftplib.FTP) -> frozenset[str]:
    """Return the features that the server announces in reply to `FEAT` (RFC 2389)."""
    with suppress(ftplib.error_perm):
        lines = ftp.voidcmd("FEAT").splitlines()[1:-1]
        return frozenset(line.split()[0].upper() for line in lines if line.strip())
    return frozenset()


def _prefer(ftp: ftplib.FTP, features: frozenset[str]) -> None:
    """Request names in UTF-8 (RFC 2640) and the `unique` fact. The server may refuse."""
    wishes = {"UTF8": "OPTS UTF8 ON", "MLST": "OPTS MLST type;size;modify;unique;"}
    for feature, command in wishes.items():
        if feature in features:
            with suppress(ftplib.error_perm):
                ftp.voidcmd(command)


def _wire(text: str) -> str:
    return text.encode().decode("latin-1")


def _entry(result: Entry | Unreadable) -> Entry | None:
    return None if isinstance(result, Unreadable) else result


def _line(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("latin-1")
