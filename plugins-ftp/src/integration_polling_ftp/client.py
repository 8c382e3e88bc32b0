"""An FTP client: commands and transfers, over a connection that opens again when it is lost."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress

from core import IntegrationError, RateLimited
from integration_polling_ftp import names
from integration_polling_ftp.account import Config, Credentials
from integration_polling_ftp.connection import Job, Write
from integration_polling_ftp.control import BLOCK, Data, Reply
from integration_polling_ftp.errors import NOT_IMPLEMENTED, Dropped, Unsupported
from integration_polling_ftp.login import Login, Server
from integration_polling_ftp.server_hashes import BYTES_PER_SECOND, Method


class Client:
    """An FTP client of one account (RFC 959).

    Commands are in latin-1. Methods raise the engine's exceptions. `first`, `begin` and `prepare`
    reopen a lost connection; a loss after them fails the operation.

    Attributes:
      login_seconds: The duration of the latest login; 0 before the first one.
      round_trip: The time from a command to its reply in that login, in seconds.
    """

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._login = Login(config, credentials)
        self._encoding = config.encoding
        self._server: Server | None = None
        self._offer: Reply | None = None
        self._closes_properly = False
        self._max_hashed_bytes = int(config.timeout_seconds * BYTES_PER_SECOND)
        self._refused_hashes: set[Method] = set()
        self._buffer = bytearray()
        self.login_seconds = 0.0
        self.round_trip = 0.0

    def close(self) -> None:
        """Close the connection, if it is open."""
        server, self._server, self._offer = self._server, None, None
        if server is not None:
            server.control.close()

    def opened(self) -> Server:
        """Return the server, over a new connection and login if there is none."""
        if self._server is None:
            began = time.monotonic()
            self._server = self._login.open()
            self.login_seconds = time.monotonic() - began
            self.round_trip = self._server.round_trip
        return self._server

    def wire(self, path: str) -> str:
        """Return the latin-1 form of a stored path, for commands."""
        return names.to_wire(path, self._encoding)

    def supports(self, feature: str) -> bool:
        """Return True if the server announces a feature."""
        return feature in self.opened().features

    # Commands

    def prepare(self, *commands: str) -> None:
        """Send the commands before a transfer, over a new connection if the current one is lost.

        On servers of `IN_SEQUENCE`, the request for the data connection travels with them. That
        saves a round trip for each of them.
        """
        if self._server is not None and self._server.pipelines:
            with suppress(Dropped):
                *replies, offer = self.ask_many([*commands, self._server.passive])
                for command, reply in zip(commands, replies, strict=True):
                    self._checked(reply, command)
                self._offer = offer
                return
        self.begin(commands[0])
        for command in commands[1:]:
            with suppress(Unsupported):  # some servers list in binary only
                self.send(command)

    @property
    def is_prepared(self) -> bool:
        """True if the next transfer has the offer of its data connection."""
        return self._offer is not None

    def begin(self, command: str) -> Reply:
        """Send an operation's first command, over a new connection if the current one is lost."""
        return self._checked(self.first(command), command)

    def first(self, command: str) -> Reply:
        """Send an operation's first command, and return its reply, which may be an error."""
        if self._server is not None:
            with suppress(Dropped):
                reply = self.ask(command)
                if reply.code != "421":
                    return reply
            self.close()
        return self.ask(command)

    def send(self, command: str) -> Reply:
        """Send a command, and raise the error of its reply."""
        return self._checked(self.ask(command), command)

    def ask(self, command: str) -> Reply:
        """Send a command, and return its reply, which may be an error."""
        server = self.opened()
        try:
            return server.ask(command)
        except Dropped:
            self.close()
            raise

    def ask_many(self, commands: Sequence[str]) -> list[Reply]:
        """Send commands in one packet, and return their replies, which may be errors."""
        control = self.opened().control
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

    def _checked(self, reply: Reply, command: str) -> Reply:
        if reply.is_error:
            error = self._login.meaning(reply, command)
            if isinstance(error, Dropped):
                self.close()
            raise error
        return reply

    # Hashes

    @property
    def hash_algorithm(self) -> str:
        """The algorithm of `hash`; empty if the server does not compute hashes."""
        method = self._hash_method()
        return method.algorithm if method else ""

    def hash(self, path: str, size: int) -> str:
        """Return the server's hash of a file as `algorithm:digits`; empty if it gives none.

        A server that does not answer in time loses the connection, and is not asked again.

        Args:
          path: The file's path as it is stored.
          size: Its size. A file that takes too long to hash is left out.
        """
        wire = self.wire(path)
        while (method := self._hash_method()) is not None:
            if size > self._max_hashed_bytes or not method.can_name(wire):
                return ""
            try:
                reply = self._ask_hash(method, wire)
            except Dropped:
                self._max_hashed_bytes = 0
                return ""
            if reply.code not in NOT_IMPLEMENTED:
                return "" if reply.is_error else method.read(reply, wire, size)
            self._refused_hashes.add(method)
        return ""

    def _hash_method(self) -> Method | None:
        offered = self.opened().hashes if self._max_hashed_bytes else []
        return next((each for each in offered if each not in self._refused_hashes), None)

    def _ask_hash(self, method: Method, wire: str) -> Reply:
        self.begin("TYPE I")
        server = self.opened()
        if method.option and server.hash_option != method.option:
            if self.ask(f"OPTS HASH {method.option}").is_error:
                return Reply("504", "")
            server.hash_option = method.option
        deadline = time.monotonic() + server.control.timeout
        try:
            server.control.send(f"{method.command} {wire}")
            return server.control.final(server.control.reply(deadline), deadline)
        except Dropped:
            self.close()
            raise

    # Transfers

    def transfer(
        self, command: str, offset: int = 0, *, about: str = ""
    ) -> Generator[memoryview, None, Reply]:
        """Yield the bytes of a data connection, and check the replies before and after them.

        After an interruption, later replies cannot be matched to commands, so the connection is
        closed.

        Args:
          command: `RETR` with a path, or a command that lists.
          offset: The number of bytes to skip (`REST`, RFC 3659). Default: 0.
          about: The command with the path that an error reply is about. Default: `command`.

        Returns:
          The last reply.

        Raises:
          Missing: The path does not exist, or reading it is not permitted.
          Unsupported: The server does not support the command, or offsets.
          Dropped: The connection is lost.
        """
        server = self.opened()
        try:
            self._announce(server, command)
            data = self._data(server)
        except Dropped:
            self.close()
            raise
        try:
            if offset and (reply := self.ask(f"REST {offset}")).is_error:
                data.close()
                raise Unsupported(reply.text)
            server.control.send(command)
            reply = server.control.reply()
            if not reply.is_error:
                self._begin_transfer(server, data, command)
                yield from data.blocks(self._blocks())
                self._check_close(command, data)
            data.close()
            reply = server.control.final(reply)
        except Unsupported:
            raise
        except BaseException:
            data.close()
            self.close()
            raise
        if reply.is_error:
            raise self._login.meaning(reply, about or command)
        return reply

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
        self.prepare("TYPE I")
        server = self.opened()
        remaining = iter(jobs)
        job = next(remaining, None)
        offered = False  # the server has a request for a data connection to answer
        try:
            while job is not None:
                path, write = job
                command = f"RETR {self.wire(path)}"
                self._announce(server, command)
                data = self._data(server, requested=offered)
                following = next(remaining, None)
                offered = server.pipelines and following is not None
                server.control.send(command, *([server.passive] if offered else []))
                error, offered = self._receive(server, data, command, write, offered=offered)
                if isinstance(error, Dropped | RateLimited):
                    raise error
                yield path, error
                job = following
        except BaseException:
            self.close()  # later replies could not be matched to commands
            raise

    def _receive(
        self, server: Server, data: Data, command: str, write: Write, *, offered: bool
    ) -> tuple[IntegrationError | None, bool]:
        """Read a transfer and its replies.

        Returns:
          The error of the server, or None; and whether the offer of the next data connection is
          still to come.
        """
        control = server.control
        try:
            reply = control.reply()
            if not reply.is_error:
                self._begin_transfer(server, data, command)
                for block in data.blocks(self._blocks()):
                    write(block)
        finally:
            data.close()
        if reply.code.startswith("1"):
            reply = control.reply()
            if offered and (reply.code in ("227", "229") or _refuses(reply, server.passive)):
                # The server handles commands during a transfer.
                server.pipelines = offered = False
                reply = control.reply()
            reply = control.final(reply)
        return (self._login.meaning(reply, command) if reply.is_error else None), offered

    def _announce(self, server: Server, command: str) -> None:
        """Announce a transfer before its data connection, if the server wants that.

        Servers that are spread over several machines, such as DrFTPD, choose one by it.
        """
        if server.announces:
            self.ask(f"PRET {command}")

    def _data(self, server: Server, *, requested: bool = False) -> Data:
        """Open a data connection, with the other request if the server does not know the first."""
        reply, self._offer = self._offer, None
        if reply is None:
            if not requested:
                server.control.send(server.passive)
            reply = server.control.reply()
        if reply.code in (*NOT_IMPLEMENTED, "522") and server.passive == server.preferred:
            server.passive = "EPSV" if server.preferred == "PASV" else "PASV"
            return self._data(server)
        if reply.is_error:
            raise self._login.meaning(reply, server.passive)
        data = server.control.connect(reply)
        if data is None:
            raise Dropped(f"the server offers no data connection: {reply.text[:80]}")
        return data

    def _begin_transfer(self, server: Server, data: Data, command: str) -> None:
        """Encrypt a data connection. If that fails, the server's reply says why, such as 522."""
        try:
            data.secure()
        except Dropped as error:
            data.close()
            reply = server.control.final(server.control.reply())
            raise (self._login.meaning(reply, command) if reply.is_error else error) from None

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

    def _blocks(self) -> bytearray:
        """Return the buffer of the client, which transfers share."""
        if not self._buffer:
            self._buffer = bytearray(BLOCK)
        return self._buffer


def _refuses(reply: Reply, command: str) -> bool:
    """Return True if a reply refuses a command that was sent during a transfer.

    ProFTPD names the command. pure-ftpd replies `500 Unknown command` if the command arrives in a
    packet of its own. A transfer that has begun does not fail with these codes (RFC 959, section
    5.4).
    """
    if reply.code in (*NOT_IMPLEMENTED, "503"):
        return True
    return reply.is_error and (command in reply.text or "in progress" in reply.text.lower())
