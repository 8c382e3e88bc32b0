"""The session of an account: login, listings, and transfers of many files in a row."""

from __future__ import annotations

import re
import time
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
from integration_polling_ftp.account import Config, Credentials, secret
from integration_polling_ftp.connection import CUT, Job, Stat, Write, stat_of
from integration_polling_ftp.control import BLOCK, Control, Data, Reply
from integration_polling_ftp.errors import (
    NOT_IMPLEMENTED,
    Dropped,
    Empty,
    Unsupported,
    Untrusted,
    meaning,
    without_secrets,
)
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
from integration_polling_ftp.replies import readable
from integration_polling_ftp.tls import Tls

MAX_LINE_BYTES = 16 * 1024
"""The maximum size of a line of a listing."""

MAX_LISTING_BYTES = 2 * 1024**3
"""The maximum size of a listing."""

IN_SEQUENCE = ("vsftpd", "proftpd", "pure-ftpd")
"""The names in the greetings of servers that read a command after the transfer before it has ended.

Others drop a transfer that has not begun when they read the next `PASV`, such as pyftpdlib.
"""

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

    Attributes:
      login_seconds: The duration of the latest login; 0 before the first one.
      round_trip: The shortest time from a command to its reply in that login, in seconds.
    """

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._config = config
        self._username = credentials.username
        self._password = credentials.password.get_secret_value()
        self._account = secret(credentials.account)
        self._tls = Tls(config, credentials) if config.protocol != "ftp" else None
        self._closes_properly = False
        self._control: Control | None = None
        self._features: frozenset[str] = frozenset()
        self._preferred = self._passive = "PASV"
        self._list = "LIST -a"
        self._pipelines = self._announces = False
        self._is_cut = False
        self._has_times = True
        self._directory = ""  # the current one, in latin-1
        self._offer: Reply | None = None
        self._buffer = bytearray()
        self.login_seconds = 0.0
        self.round_trip = 0.0

    def close(self) -> None:
        """Close the connection, if it is open."""
        control, self._control, self._offer = self._control, None, None
        if control is not None:
            control.close()

    def ping(self) -> None:
        """Send `NOOP`, over a new connection and login if there is none.

        Raises:
          Dropped: The server does not answer.
        """
        self._begin("NOOP")

    def home(self) -> str:
        """Return the directory after the login; `/` if the server does not name it as a path.

        The reply is in appendix II of RFC 959.

        Raises:
          Dropped: The server does not answer.
        """
        found = _HOME.match(self._first("PWD").text)
        path = found[1].replace('""', '"') if found else ""
        return names.to_text(path, self._config.encoding) if path.startswith("/") else "/"

    def enter(self, path: str) -> None:
        """Make a directory the current one.

        Raises:
          Missing: The directory does not exist, or entering it is not permitted.
        """
        self._begin(f"CWD {self.wire(path)}")
        self._directory = self.wire(path)

    def wire(self, path: str) -> str:
        """Return the latin-1 form of a stored path, for commands."""
        return names.to_wire(path, self._config.encoding)

    def text(self, entry: Entry) -> str:
        """Return the name of an entry as it is stored."""
        return entry.text

    def is_safe(self, entry: Entry) -> bool:
        """Return True if commands can name an entry."""
        return names.is_safe(entry.name, newlines=self._opened().takes_newlines)

    # Listings

    def entries(self, path: str) -> Iterator[Entry | str]:
        """List a directory; a text is a line that cannot be read, or `CUT` at the end.

        The names are not checked: a caller must test them with `is_safe`.

        Raises:
          Missing: The directory does not exist, or reading it is not permitted.
          TransientError: The connection broke, or the listing exceeds a bound.
        """
        self._prepare(f"CWD {self.wire(path)}", "TYPE A")
        self._directory = self.wire(path)
        self._is_cut = False
        prefixes = (f"{self._directory.rstrip('/')}/", "./")
        for each in self._listed(path):
            yield each.line if isinstance(each, Unreadable) else _without_prefix(each, prefixes)
        if self._is_cut:
            yield CUT

    def _listed(self, path: str) -> Iterator[Entry | Unreadable]:
        """Yield a listing line by line, so that memory does not grow with it."""
        encoding = self._config.encoding
        if "MLST" in self._features:
            try:
                yield from read_facts(self._lines("MLSD"), encoding=encoding)
                return
            except Unsupported:
                self._features -= {"MLST"}
        now = datetime.now(UTC)
        try:
            yield from read_lines(self._list_lines(), now=now, encoding=encoding)
        except Unsupported:
            yield from self._named(path)

    def _named(self, path: str) -> Iterator[Entry]:
        """List a directory of a server that has `NLST` only: each name costs further commands."""
        found = [line.decode("latin-1").rpartition("/")[2] for line in self._lines("NLST")]
        for name in found:
            entry = Entry(name, "file", encoding=self._config.encoding)
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
        is_empty = True
        try:
            for line in self._lines(self._list):
                is_empty = False
                yield line
        except IntegrationError as error:
            if isinstance(error, FINAL) or self._list == "LIST" or not is_empty:
                raise
        if is_empty and self._list != "LIST":
            for line in self._lines("LIST"):
                self._list = "LIST"
                yield line

    def _lines(self, command: str) -> Iterator[bytes]:
        """Yield the lines of a listing, without holding all of them."""
        if self._offer is None:
            with suppress(Unsupported):
                self._send("TYPE A")
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
        return self._supports("MLST")

    def links(self, path: str) -> set[str]:
        """Return the names of the links in a directory, as `LIST` shows them.

        Raises:
          Missing: The directory does not exist, or reading it is not permitted.
        """
        self.enter(path)
        now = datetime.now(UTC)
        found = parse_listing(self._list_lines(), now=now, encoding=self._config.encoding)
        return {self.text(entry) for entry in found.entries if entry.kind == "link"}

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
        if not self._supports("MLST"):
            return None
        facts = self._facts(path)
        return facts.unique if facts is not None else None

    def stat(self, path: str) -> Stat:
        """Return the size and time of a file, as far as the server gives them."""
        if self._supports("MLST") and (facts := self._facts(path)) is not None:
            return stat_of(facts)
        return self.follow(path)

    def stats(self, paths: Sequence[str]) -> dict[str, Stat]:
        """Return the sizes and times of files; see `stat`.

        Servers of `IN_SEQUENCE` get the commands for many files in one packet.
        """
        if not self._pipelines:
            return {path: self.stat(path) for path in paths}
        self._begin("TYPE I")
        commands = ["MLST"] if self._supports("MLST") else ["SIZE", "MDTM"]
        found: dict[str, Stat] = {}
        for first in range(0, len(paths), STATS):
            portion = paths[first : first + STATS]
            sent = [f"{command} {self.wire(path)}" for path in portion for command in commands]
            replies = iter(self._ask_many(sent))
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
        portion = STATS if self._opened() and self._pipelines else 1
        for first in range(0, len(paths) if self._has_times else 0, portion):
            asked = paths[first : first + portion]
            commands = [f"MDTM {self.wire(path)}" for path in asked]
            replies = self._ask_many(commands) if portion > 1 else [self._first(commands[0])]
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
        self._begin("TYPE I")
        size = self._ask(f"SIZE {self.wire(path)}")
        return _stat(_value(size), _value(self._ask(f"MDTM {self.wire(path)}")))

    def _facts(self, path: str) -> Entry | None:
        return _facts(self._first(f"MLST {self.wire(path)}"))

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
        self._begin("TYPE I")
        for block in self._transfer(f"RETR {self.wire(path)}", offset):
            write(block)

    def retrieve_many(self, jobs: Iterable[Job]) -> Iterator[tuple[str, IntegrationError | None]]:
        """Fetch files one after another, without waiting between them.

        On servers of `IN_SEQUENCE`, the request for the next data connection travels with each
        `RETR`, which saves a round trip for each file.

        Args:
          jobs: The files. The next one is read when the one before it has begun.

        Yields:
          For each file its path, and None after a complete transfer, or the error that the server
          replied.

        Raises:
          Dropped: The connection is lost.
        """
        self._prepare("TYPE I")
        control = self._opened()
        remaining = iter(jobs)
        job = next(remaining, None)
        offered = False  # the server has a request for a data connection to answer
        try:
            while job is not None:
                path, write = job
                self._announce(f"RETR {self.wire(path)}")
                data = self._data(control, requested=offered)
                following = next(remaining, None)
                offered = self._pipelines and following is not None
                command = f"RETR {self.wire(path)}"
                control.send(command, *([self._passive] if offered else []))
                error, offered = self._receive(control, data, command, write, offered=offered)
                if isinstance(error, Dropped | RateLimited):
                    raise error
                yield path, error
                job = following
        except BaseException:
            self.close()  # later replies could not be matched to commands
            raise

    def _receive(
        self, control: Control, data: Data, command: str, write: Write, *, offered: bool
    ) -> tuple[IntegrationError | None, bool]:
        """Read a transfer and its replies.

        Returns:
          The error of the server, or None; and whether the offer of the next data connection is
          still to come.
        """
        try:
            reply = control.reply()
            if not reply.is_error:
                self._begin_transfer(control, data, command)
                for block in data.blocks(self._blocks()):
                    write(block)
        finally:
            data.close()
        if reply.code.startswith("1"):
            reply = control.reply()
            if offered and (reply.code in ("227", "229") or _refuses(reply, self._passive)):
                # The server handles commands during a transfer.
                self._pipelines = offered = False
                reply = control.reply()
            reply = control.final(reply)
        return (self._meaning(reply, command) if reply.is_error else None), offered

    def _data(self, control: Control, *, requested: bool = False) -> Data:
        """Open a data connection, with the other request if the server does not know the first."""
        reply, self._offer = self._offer, None
        if reply is None:
            if not requested:
                control.send(self._passive)
            reply = control.reply()
        if reply.code in (*NOT_IMPLEMENTED, "522") and self._passive == self._preferred:
            self._passive = "EPSV" if self._preferred == "PASV" else "PASV"
            return self._data(control)
        if reply.is_error:
            raise self._meaning(reply)
        data = control.connect(reply)
        if data is None:
            raise Dropped(f"the server offers no data connection: {reply.text[:80]}")
        return data

    def _transfer(self, command: str, offset: int = 0) -> Iterator[memoryview]:
        """Yield the bytes of a data connection, and check the replies before and after them.

        After an interruption, later replies cannot be matched to commands, so the session is
        closed.
        """
        control = self._opened()
        try:
            self._announce(command)
            data = self._data(control)
        except Dropped:
            self.close()
            raise
        try:
            if offset and (reply := self._ask(f"REST {offset}")).is_error:
                data.close()
                raise Unsupported(reply.text)
            control.send(command)
            reply = control.reply()
            if not reply.is_error:
                self._begin_transfer(control, data, command)
                yield from data.blocks(self._blocks())
                self._check_close(command, data)
            data.close()
            reply = control.final(reply)
        except Unsupported:
            raise
        except BaseException:
            data.close()
            self.close()
            raise
        if reply.is_error:
            is_file = command.startswith("RETR ")
            about = command if is_file else f"{command.partition(' ')[0]} {self._directory}"
            raise self._meaning(reply, about)
        self._check_listing(command, reply)

    def _announce(self, command: str) -> None:
        """Announce a transfer before its data connection, if the server wants that.

        Servers that are spread over several machines, such as DrFTPD, choose one by it.
        """
        if self._announces:
            self._ask(f"PRET {command}")

    def _begin_transfer(self, control: Control, data: Data, command: str) -> None:
        """Encrypt a data connection. If that fails, the server's reply says why, such as 522."""
        try:
            data.secure()
        except Dropped as error:
            data.close()
            reply = control.final(control.reply())
            raise (self._meaning(reply, command) if reply.is_error else error) from None

    def _check_close(self, command: str, data: Data) -> None:
        """Check the end of a listing. The size of a file says whether it is complete.

        Raises:
          Dropped: The encrypted connection broke off, although this server has closed others
            properly.
        """
        if data.is_closed:
            self._closes_properly = True
        elif self._closes_properly and not command.startswith("RETR "):
            raise Dropped("the listing broke off")

    def _check_listing(self, command: str, reply: Reply) -> None:
        """Vsftpd replies 226 for a directory that it cannot read, pure-ftpd for a part of one."""
        if command.startswith("RETR "):
            return
        text = _QUOTED.sub("", reply.text)  # other servers name the directory
        if "(but failed to open directory)" in text:
            raise meaning(f"550{reply.text[3:]}")
        self._is_cut = "Output truncated" in text

    def _blocks(self) -> bytearray:
        """Return the buffer of the session, which transfers share."""
        if not self._buffer:
            self._buffer = bytearray(BLOCK)
        return self._buffer

    # Commands

    def _prepare(self, *commands: str) -> None:
        """Send the commands before a transfer, over a new connection if the current one is lost.

        On servers of `IN_SEQUENCE`, the request for the data connection travels with them. That
        saves a round trip for each of them.
        """
        if self._pipelines and self._control is not None:
            with suppress(Dropped):
                *replies, offer = self._ask_many([*commands, self._passive])
                for command, reply in zip(commands, replies, strict=True):
                    self._checked(reply, command)
                self._offer = offer
                return
        self._begin(commands[0])
        for command in commands[1:]:
            with suppress(Unsupported):  # some servers list in binary only
                self._send(command)

    def _begin(self, command: str) -> Reply:
        """Send an operation's first command, over a new connection if the current one is lost."""
        return self._checked(self._first(command), command)

    def _first(self, command: str) -> Reply:
        if self._control is not None:
            with suppress(Dropped):
                reply = self._ask(command)
                if reply.code != "421":
                    return reply
            self.close()
        self._open()
        return self._ask(command)

    def _send(self, command: str) -> Reply:
        return self._checked(self._ask(command), command)

    def _checked(self, reply: Reply, command: str) -> Reply:
        if reply.is_error:
            error = self._meaning(reply, command)
            if isinstance(error, Dropped):
                self.close()
            raise error
        return reply

    def _ask(self, command: str) -> Reply:
        """Send a command, and return its reply, which may be an error."""
        control = self._opened()
        try:
            control.send(command)
            return control.reply()
        except Dropped:
            self.close()
            raise

    def _ask_many(self, commands: Sequence[str]) -> list[Reply]:
        """Send commands in one packet, and return their replies, which may be errors."""
        control = self._opened()
        try:
            control.send(*commands)
            replies = [control.reply() for _ in commands]
        except BaseException:
            self.close()  # later replies could not be matched to commands
            raise
        for reply in replies:
            if reply.code == "421":
                self._checked(reply, "")
        return replies

    def _meaning(self, reply: Reply, command: str = "") -> IntegrationError:
        """Return the exception for an error reply, whose text does not repeat the password."""
        error = meaning(reply.text, command)
        known = (self._password, self._account)
        secrets = (*known, *map(_wire, known))
        error.args = tuple(without_secrets(str(each), *secrets) for each in error.args)
        return error

    def _supports(self, feature: str) -> bool:
        self._opened()
        return feature in self._features

    # The connection

    def _opened(self) -> Control:
        if self._control is None:
            self._open()
        assert self._control is not None
        return self._control

    def _open(self) -> None:
        began = time.monotonic()
        config = self._config
        control = Control(config.host, config.effective_port, config.timeout_seconds)
        try:
            self._greet(control, self._tls)
            self._login(control)
            self._control = control
            if self._tls:
                self._protect()
            asked = time.monotonic()
            self._features = _features(self._ask("FEAT"))
            # pure-ftpd has PRET and does not need it.
            self._announces = "PRET" in self._features and not self._pipelines
            self.round_trip = time.monotonic() - asked
            self._prefer()
        except BaseException:
            self._control = None
            control.close()
            raise
        self.login_seconds = time.monotonic() - began

    def _greet(self, control: Control, tls: Tls | None) -> None:
        """Read the greeting, and encrypt the connection before any secret is sent.

        Raises:
          Untrusted: The certificate is not trusted; the message has its fingerprint.
          ConfigurationError: The server does not support TLS.
        """
        implicit = self._config.protocol == "ftps-implicit"
        try:
            if tls and implicit:
                control.secure(tls)
            greeting = control.final(control.reply())
            self._require(greeting)
            self._know(control, greeting.text.lower())
            if tls and not implicit:
                self._upgrade(control, tls)
        except Untrusted as error:
            if not self._config.tls_fingerprint and (found := self._look()):
                error.args = (f"{error}. Its SHA-256: {found}",)
            raise

    def _know(self, control: Control, banner: str) -> None:
        control.is_telnet = "proftpd" in banner
        control.takes_newlines = "vsftpd" in banner
        self._pipelines = any(name in banner for name in IN_SEQUENCE)
        # A firewall cannot read an encrypted PASV. EPSV also works over IPv6 (RFC 2428).
        self._preferred = "EPSV" if control.is_ipv6 or self._tls else "PASV"
        self._passive = self._preferred

    def _upgrade(self, control: Control, tls: Tls) -> None:
        control.send("AUTH TLS")
        reply = control.reply()
        if reply.code == "421":
            raise self._meaning(reply)
        if not reply.code.startswith("2"):
            raise ConfigurationError(f"the server does not support FTPS: {readable(reply.text)}")
        control.secure(tls)

    def _protect(self) -> None:
        """Encrypt data connections (RFC 4217, section 9).

        Raises:
          ConfigurationError: The server refuses. Files would travel unencrypted.
        """
        self._ask("PBSZ 0")
        reply = self._ask("PROT P")
        implicit = self._config.protocol == "ftps-implicit"
        if reply.is_error and not (implicit and reply.code in NOT_IMPLEMENTED):
            raise ConfigurationError(
                f"the server does not encrypt data connections: {readable(reply.text)}"
            )

    def _look(self) -> str:
        """Return the fingerprint of the server's certificate; empty if it shows none now."""
        config = self._config
        with suppress(IntegrationError):
            control = Control(config.host, config.effective_port, config.timeout_seconds)
            try:
                if config.protocol == "ftps":
                    control.final(control.reply())
                    control.send("AUTH TLS")
                    control.reply()
                return control.look()
            finally:
                control.close()
        return ""

    def _login(self, control: Control) -> None:
        control.send(f"USER {_wire(self._username)}")
        reply = control.reply()
        if reply.code == "331":
            control.send(f"PASS {_wire(self._password)}")
            reply = control.reply()
        if reply.code == "332" and self._account:
            control.send(f"ACCT {_wire(self._account)}")
            reply = control.reply()
        self._require(reply)

    def _require(self, reply: Reply) -> None:
        if not reply.code.startswith("2"):
            raise self._meaning(reply)

    def _prefer(self) -> None:
        """Request names in UTF-8 (RFC 2640) and the `unique` fact. The server may refuse.

        Some servers have UTF-8 and no `FEAT`. Names in another charset are left as they are.
        """
        if self._config.encoding == "utf-8" and "UTF8" in (self._features or {"UTF8"}):
            self._ask("OPTS UTF8 ON")
        if "MLST" in self._features:
            self._ask("OPTS MLST type;size;modify;unique;")


def _features(reply: Reply) -> frozenset[str]:
    """Return the features that the server announces in reply to `FEAT` (RFC 2389)."""
    lines = reply.text.splitlines()[1:-1] if reply.code == "211" else []
    return frozenset(line.split()[0].upper() for line in lines if line.strip())


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
    lines = reply.text.splitlines()[1:-1] if reply.code == "250" else []
    return next(filter(None, (parse_facts(line.lstrip()) for line in lines)), None)


def _refuses(reply: Reply, command: str) -> bool:
    """Return True if a reply refuses a command that was sent during a transfer.

    ProFTPD names the command. pure-ftpd replies `500 Unknown command` if the command arrives in a
    packet of its own. A transfer that has begun does not fail with these codes (RFC 959, section
    5.4).
    """
    if reply.code in (*NOT_IMPLEMENTED, "503"):
        return True
    return reply.is_error and (command in reply.text or "in progress" in reply.text.lower())


def _wire(text: str) -> str:
    return text.encode().decode("latin-1")
