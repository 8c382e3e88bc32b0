"""One control connection, opened when it is needed and again when the server has dropped it."""

from __future__ import annotations

import ftplib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from core import IntegrationError, PermanentError, TransientError
from integration_polling_ftp import names
from integration_polling_ftp.account import Config, Credentials
from integration_polling_ftp.errors import Dropped, Unsupported, translated
from integration_polling_ftp.listing import Entry, parse_facts, parse_line

BLOCK = 64 * 1024
MAX_LINE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Stat:
    """What the server says of one file now; empty where it says nothing."""

    size: int | None
    modified: str

    @property
    def is_exact(self) -> bool:
        """Whether two equal ones mean the same bytes, so that a transfer may be resumed."""
        return self.size is not None and bool(self.modified)

    def __str__(self) -> str:
        return f"{self.size}:{self.modified}"


class Session:
    """Speak FTP for one account.

    Paths are as the database keeps them (see `names`); errors are the engine's.

    Its first command of each operation opens the connection again if it was lost; what fails later
    fails the task.
    """

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._config = config
        self._username = credentials.username
        self._password = credentials.password.get_secret_value()
        self._ftp: ftplib.FTP | None = None
        self._features: frozenset[str] = frozenset()

    def close(self) -> None:
        ftp, self._ftp = self._ftp, None
        if ftp is not None:
            with suppress(OSError):
                ftp.close()

    def enter(self, path: str) -> None:
        """Make a directory the current one.

        Raises:
          Missing: There is no such directory, or it may not be entered.
        """
        self._begin(f"CWD {names.to_wire(path)}")

    def entries(self, path: str) -> Iterator[Entry | None]:
        """List a directory; `None` stands for an unreadable line.

        The list may contain unsafe names.

        Raises:
          Missing: There is no such directory, or it may not be read.
        """
        self.enter(path)
        if "MLST" in self._features:
            try:
                yield from map(parse_facts, self._lines("MLSD"))
                return
            except Unsupported:
                self._features -= {"MLST"}
        now = datetime.now(UTC)
        for line in self._lines("LIST"):
            if line.strip() and not line.startswith("total "):
                yield parse_line(line, now)

    def unique(self, path: str) -> str | None:
        """What tells this directory from others under whatever name, if the server knows."""
        return self._facts(path).unique if self._supports("MLST") else None

    def stat(self, path: str) -> Stat:
        """The size and time of a file.

        Raises:
          Missing: It is not there, as far as the server tells.
        """
        if self._supports("MLST"):
            facts = self._facts(path)
            return Stat(facts.size, facts.modified)
        return self.follow(path)

    def follow(self, path: str) -> Stat:
        """The size and time of a file, or of a link's target, from a server without MLST.

        Raises:
          Missing: It is not there, or no file.
        """
        self._begin("TYPE I")
        size = self._ask(f"SIZE {names.to_wire(path)}")
        modified = self._ask(f"MDTM {names.to_wire(path)}")
        return Stat(int(size) if size.isdecimal() else None, modified)

    def retrieve(self, path: str, write: Callable[[bytes], object], offset: int = 0) -> None:
        """Hand the bytes of a file from `offset` on to `write`.

        Raises:
          Missing: It is not there, or may not be read.
          Unsupported: The server cannot begin at an offset.
        """
        self._begin("TYPE I")
        for block in self._transfer(f"RETR {names.to_wire(path)}", offset):
            write(block)

    # Commands

    def _begin(self, command: str) -> str:
        """Send an operation's first command, over a new connection if the current one is dead."""
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
        """A fact from a `213` reply; empty if the server has no such command."""
        try:
            return self._send(command)[3:].strip()
        except Unsupported:
            return ""

    def _supports(self, feature: str) -> bool:
        if self._ftp is None:
            self._open()
        return feature in self._features

    def _facts(self, path: str) -> Entry:
        lines = self._begin(f"MLST {names.to_wire(path)}").splitlines()
        facts = next((parse_facts(line.lstrip()) for line in lines if line.startswith(" ")), None)
        if facts is None:
            raise TransientError(f"no facts in {lines[:1]}")
        return facts

    # The connection

    def _open(self) -> None:
        # FTP is what this is for.
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
        """The bytes of a data connection.

        When it breaks, replies can no longer be told apart: then all is closed.
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
        if "fail" in reply.lower():  # vsftpd says so with 226 when it may not read a directory
            raise PermanentError(reply)

    def _lines(self, command: str) -> Iterator[str]:
        """The lines of a listing, split at LF alone and never held all at once."""
        self._send("TYPE A")
        rest = b""
        for block in self._transfer(command):
            *lines, rest = (rest + block).split(b"\n")
            yield from map(_line, lines)
            if len(rest) > MAX_LINE_BYTES:
                raise TransientError("a line of the listing has no end")
        if rest:
            yield _line(rest)


def _features(ftp: ftplib.FTP) -> frozenset[str]:
    """What the server says it can, by `FEAT` (RFC 2389)."""
    with suppress(ftplib.error_perm):
        lines = ftp.voidcmd("FEAT").splitlines()[1:-1]
        return frozenset(line.split()[0].upper() for line in lines if line.strip())
    return frozenset()


def _prefer(ftp: ftplib.FTP, features: frozenset[str]) -> None:
    """Ask for names in UTF-8 and for the `unique` fact; the server may refuse."""
    wishes = {"UTF8": "OPTS UTF8 ON", "MLST": "OPTS MLST type;size;modify;unique;"}
    for feature, command in wishes.items():
        if feature in features:
            with suppress(ftplib.error_perm):
                ftp.voidcmd(command)


def _wire(text: str) -> str:
    return text.encode().decode("latin-1")


def _line(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("latin-1")
