"""SFTP version 3 (draft-ietf-secsh-filexfer-02): requests that only read, and bounded replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Generic, TypeVar

import asyncssh

from core import IntegrationError, PermanentError, TransientError
from integration_polling_ftp.errors import Dropped, Missing, Unsupported

T = TypeVar("T")


class Request(IntEnum):
    """The requests that the plugin can send. They only read (sections 4 and 6 of the draft).

    `EXTENDED` is sent with the names in `Extension` only.
    """

    INIT = 1
    OPEN = 3
    CLOSE = 4
    READ = 5
    FSTAT = 8
    OPENDIR = 11
    READDIR = 12
    REALPATH = 16
    STAT = 17
    EXTENDED = 200


class Extension(Enum):
    """The extensions that the plugin can use. They only read."""

    LIMITS = b"limits@openssh.com"
    CHECK_FILE = b"check-file-name"


class Reply(IntEnum):
    """The replies of a server (section 7 of the draft)."""

    VERSION = 2
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 201


VERSION = 3
FOR_READING = b"\0\0\0\1"
"""The only flag with which a file is opened (SSH_FXF_READ)."""

MAX_PACKET_BYTES = 256 * 1024
"""The maximum size of a packet. OpenSSH's client and server have the same bound."""

LENGTH_BYTES = 4
"""The size of the length before each packet."""

READ_BYTES = 32 * 1024
"""The bytes of a read. Every server must accept a packet of this size (section 3)."""

MAX_READ_BYTES = MAX_PACKET_BYTES - 1024
"""The bytes of a read, if the server's limits allow it. Each read has a fixed cost."""

HASH, HASH_BYTES = b"sha256", 32
"""The only hash that the plugin asks for: the engine computes it for each file."""

MAX_HANDLE_BYTES = 256
"""The maximum size of a handle (section 6.2)."""

MAX_MESSAGE_CHARS = 300
"""The length to which a server's message is cut."""

END = 1
"""The status code at the end of a file or directory (SSH_FX_EOF)."""

_SIZE, _OWNER, _PERMISSIONS, _TIMES, _EXTENDED = 1, 2, 4, 8, 0x80000000
"""The flags of attributes (section 5)."""

INVALID = "the server sent an invalid SFTP packet"
"""The message about a reply that breaks the protocol."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """Attributes of a file, as far as the server gives them.

    Attributes:
      size: The size in bytes.
      mode: The type and the permissions, as in POSIX.
      modified: The time of the last change, in seconds since 1970.
    """

    size: int | None = None
    mode: int | None = None
    modified: int | None = None


@dataclass(frozen=True, slots=True)
class Name:
    """An entry of a directory: its name, its line as `ls -l` shows it, and its attributes."""

    name: bytes
    line: bytes
    attributes: Attributes


class Packet:
    """The fields of a packet, read one after another.

    Every method raises `Dropped` if the packet is too short.

    Args:
      data: Received bytes.
      begin: The position of the packet's type in them.
      end: The end of the packet.
    """

    __slots__ = ("_at", "_data", "_end", "type")

    def __init__(self, data: bytes, begin: int, end: int) -> None:
        self.type = data[begin]
        self._data = data
        self._at = begin + 1
        self._end = end

    def take(self, length: int) -> bytes:
        """Return the next bytes."""
        end = self._at + length
        if end > self._end:
            raise Dropped(INVALID)
        taken, self._at = self._data[self._at : end], end
        return taken

    def number(self, length: int = 4) -> int:
        """Return the next unsigned number."""
        return int.from_bytes(self.take(length), "big")

    def text(self) -> bytes:
        """Return the next string, which follows its length."""
        return self.take(self.number())

    def view(self) -> memoryview:
        """Return the next string without a copy."""
        length = self.number()
        begin, self._at = self._at, self._at + length
        if self._at > self._end:
            raise Dropped(INVALID)
        return memoryview(self._data)[begin : self._at]

    def is_over(self) -> bool:
        """Return True after the last field."""
        return self._at >= self._end

    def attributes(self) -> Attributes:
        """Return the next attributes (section 5)."""
        flags = self.number()
        size = self.number(8) if flags & _SIZE else None
        if flags & _OWNER:
            self.take(8)
        mode = self.number() if flags & _PERMISSIONS else None
        modified = None
        if flags & _TIMES:
            self.take(4)
            modified = self.number()
        if flags & _EXTENDED:
            for _ in range(self.number()):
                self.text()
                self.text()
        return Attributes(size, mode, modified)

    def names(self) -> list[Name]:
        """Return the names of a part of a directory."""
        # Each name takes bytes of the packet, so the count cannot exceed its size.
        return [Name(self.text(), self.text(), self.attributes()) for _ in range(self.number())]


@dataclass(frozen=True, slots=True)
class _Question(Generic[T]):
    """A request that waits for its reply.

    Attributes:
      expected: The type of the reply.
      read: Returns the result of such a reply.
      end: Returns the result of the status "end of file". None: it is an error.
    """

    future: asyncio.Future[T]
    expected: Reply
    read: Callable[[Packet], T]
    end: Callable[[], T] | None

    def settle(self, packet: Packet) -> None:
        """Set the result.

        Raises:
          Dropped: The reply is of another type, or too short.
        """
        if self.future.done():
            return
        if packet.type == self.expected:
            self.future.set_result(self.read(packet))
        elif packet.type != Reply.STATUS:
            raise Dropped(INVALID)
        elif (code := packet.number()) == END and self.end is not None:
            self.future.set_result(self.end())
        else:
            self.give_up(_refusal(code, packet))

    def give_up(self, error: IntegrationError) -> None:
        """Set an error. It need not be awaited: transfers end before all their requests do."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()


class SftpChannel(asyncssh.SSHClientSession[bytes]):
    """A channel with the subsystem `sftp`. Requests need not wait for replies to earlier ones.

    A method that returns a future sends its request immediately. The future raises `Missing` or
    another `PermanentError` if the server refuses, and `Dropped` if the connection is lost or the
    server breaks the protocol.

    Args:
      answered: Is called when the server answers.

    Attributes:
      read_bytes: The bytes that one read may request.
    """

    def __init__(self, answered: Callable[[], None]) -> None:
        self._answered = answered
        self._loop = asyncio.get_running_loop()
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._outgoing = bytearray()
        self._parts: list[bytes] = []
        self._missing = LENGTH_BYTES
        self._number = 0
        self._open: dict[int, _Question[Any] | None] = {}
        self._error: IntegrationError | None = None
        self.read_bytes = READ_BYTES

    # The callbacks of asyncssh

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Keep the channel."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Handle each complete packet. The parts of a large one are joined once, at its end."""
        if datatype is not None or self._error is not None:
            return
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return
        received = b"".join(self._parts)
        try:
            rest = self._settle_all(received)
        except Dropped as error:
            self._fail(error)
        else:
            self._parts = [received[rest:]]

    def _settle_all(self, received: bytes) -> int:
        """Handle the complete packets in the received bytes. Return the end of the last one."""
        begin, end = 0, len(received)
        self._missing = LENGTH_BYTES
        while (first := begin + LENGTH_BYTES) <= end:
            length = int.from_bytes(received[begin:first], "big")
            if not 5 <= length <= MAX_PACKET_BYTES:
                raise Dropped(f"the server sent an SFTP packet of {length:,} bytes")
            if first + length > end:
                self._missing += length
                break
            self._settle(Packet(received, first, first + length))
            begin = first + length
        self._missing -= end - begin
        return begin

    def eof_received(self) -> bool:
        """End all requests: the server sends nothing more."""
        self._fail(Dropped("the server ended the SFTP session"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End all requests."""
        self._fail(Dropped(f"the connection is lost: {exc}" if exc else "the connection is lost"))

    # Requests

    async def start(self) -> None:
        """Agree on the version of the protocol, and ask for the limits. Nothing waits for these."""
        question = self._question(Reply.VERSION, _read_version)
        self._open[0] = question  # the reply has no number
        self._send(Request.INIT, _number(VERSION))
        version, extensions = await question.future
        if version < VERSION:
            raise Dropped("the server does not support version 3 of SFTP")
        if Extension.LIMITS.value in extensions:
            self._ask_extension(Extension.LIMITS, self._read_limits)

    def _read_limits(self, packet: Packet) -> None:
        """Keep the limit of reads. It is 0 if the server does not know it."""
        packet.number(8)
        self.read_bytes = max(READ_BYTES, min(packet.number(8), MAX_READ_BYTES))

    def real_path(self, path: bytes) -> asyncio.Future[bytes]:
        """Return a path without links, `.` and `..`."""
        return self._ask(Request.REALPATH, _string(path), Reply.NAME, _only_name)

    def stat(self, path: bytes) -> asyncio.Future[Attributes]:
        """Return the attributes of a file, or of a link's target."""
        return self._ask(Request.STAT, _string(path), Reply.ATTRS, Packet.attributes)

    def open(self, path: bytes) -> asyncio.Future[bytes]:
        """Open a file for reading. Return its handle."""
        body = _string(path) + FOR_READING + _number(0)
        return self._ask(Request.OPEN, body, Reply.HANDLE, _read_handle)

    def stat_open(self, handle: bytes) -> asyncio.Future[Attributes]:
        """Return the attributes of an open file."""
        return self._ask(Request.FSTAT, _string(handle), Reply.ATTRS, Packet.attributes)

    def read(self, handle: bytes, offset: int, length: int) -> asyncio.Future[memoryview]:
        """Return bytes of an open file, at least one of them; none at its end."""

        def data(packet: Packet) -> memoryview:
            found = packet.view()
            if len(found) > length:
                raise Dropped(INVALID)
            return found

        body = _string(handle) + offset.to_bytes(8, "big") + _number(length)
        return self._ask(Request.READ, body, Reply.DATA, data, end=_nothing)

    def hash(self, path: bytes) -> asyncio.Future[str]:
        """Return the SHA-256 of a complete file (draft-ietf-secsh-filexfer-extensions-00).

        It is empty if the reply means something else. Not every server that has the extension
        announces it in version 3. The others refuse it with `Unsupported`.
        """
        everything = _number(0) * 4  # the first byte, and the length: up to the end
        body = _string(path) + _string(HASH) + everything + _number(0)  # one hash, without blocks
        return self._ask_extension(Extension.CHECK_FILE, _read_hash, body)

    def open_directory(self, path: bytes) -> asyncio.Future[bytes]:
        """Open a directory. Return its handle."""
        return self._ask(Request.OPENDIR, _string(path), Reply.HANDLE, _read_handle)

    def read_directory(self, handle: bytes) -> asyncio.Future[list[Name] | None]:
        """Return some entries of an open directory; None at its end."""
        return self._ask(
            Request.READDIR, _string(handle), Reply.NAME, Packet.names, end=lambda: None
        )

    def close(self, handle: bytes) -> None:
        """Close a file or directory. Nothing waits for the reply."""
        if self._error is None:
            self._request(Request.CLOSE, _string(handle), None)

    def _question(
        self, expected: Reply, read: Callable[[Packet], T], end: Callable[[], T] | None = None
    ) -> _Question[T]:
        return _Question(self._loop.create_future(), expected, read, end)

    def _ask(
        self, request: Request, body: bytes, expected: Reply, read: Callable[[Packet], T],
        end: Callable[[], T] | None = None,
    ) -> asyncio.Future[T]:  # fmt: skip
        question = self._question(expected, read, end)
        if self._error is None:
            self._request(request, body, question)
        else:
            question.give_up(self._error)
        return question.future

    def _ask_extension(
        self, extension: Extension, read: Callable[[Packet], T], body: bytes = b""
    ) -> asyncio.Future[T]:
        body = _string(Extension(extension).value) + body
        return self._ask(Request.EXTENDED, body, Reply.EXTENDED, read)

    def _request(self, request: Request, body: bytes, question: _Question[Any] | None) -> None:
        self._number = self._number % 0xFFFFFFFF + 1  # 0 is for the version
        self._open[self._number] = question
        self._send(request, _number(self._number) + body)

    def _send(self, request: Request, body: bytes) -> None:
        """Send a packet, together with the others of the same turn of the event loop.

        asyncssh makes two packets and two system calls of each write.
        """
        is_first = not self._outgoing
        self._outgoing += _number(1 + len(body)) + bytes([Request(request)]) + body
        if not self._loop.is_running():
            self.flush()
        elif is_first:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write the packets that wait. Nothing else writes to the channel."""
        assert self._channel is not None
        data, self._outgoing = bytes(self._outgoing), bytearray()
        if data and not self._channel.is_closing():
            self._channel.write(data)

    def _settle(self, packet: Packet) -> None:
        number = 0 if packet.type == Reply.VERSION else packet.number()
        if number not in self._open:
            raise Dropped(INVALID)  # no request has this number
        question = self._open.pop(number)
        self._answered()
        if question is not None:
            try:
                question.settle(packet)
            except Dropped as error:
                question.give_up(error)
                raise

    def _fail(self, error: IntegrationError) -> None:
        if self._error is None:
            self._error = error
        self._parts.clear()
        for question in self._open.values():
            if question is not None:
                question.give_up(self._error)
        self._open.clear()


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _string(data: bytes) -> bytes:
    return _number(len(data)) + data


def _nothing() -> memoryview:
    return memoryview(b"")


def _read_version(packet: Packet) -> tuple[int, frozenset[bytes]]:
    """Return the version and the names of the server's extensions (section 4 of the draft)."""
    version = packet.number()
    extensions = set()
    while not packet.is_over():
        extensions.add(packet.text())
        packet.text()
    return version, frozenset(extensions)


def _read_handle(packet: Packet) -> bytes:
    handle = packet.text()
    if len(handle) > MAX_HANDLE_BYTES:
        raise Dropped(INVALID)
    return handle


def _read_hash(packet: Packet) -> str:
    """Return the hash; empty if it is of another algorithm or length.

    Some servers send the name of the extension before that of the algorithm.
    """
    name = packet.text()
    algorithm = packet.text() if name == b"check-file" else name
    if algorithm != HASH:
        return ""
    digits = packet.take(HASH_BYTES).hex()
    return digits if packet.is_over() else ""


def _only_name(packet: Packet) -> bytes:
    found = packet.names()
    if len(found) != 1:
        raise Dropped(INVALID)
    return found[0].name


_STATUS: dict[int, tuple[type[IntegrationError], str]] = {
    2: (Missing, "no such file or directory"),
    3: (Missing, "permission denied"),
    6: (Dropped, "no connection"),
    7: (Dropped, "the connection is lost"),
    8: (Unsupported, "not supported"),
    10: (Missing, "no such path"),
    17: (TransientError, "the file is locked"),
    19: (Missing, "not a directory"),
    20: (Missing, "invalid name"),
    21: (Missing, "too many links"),
}
"""The exceptions for codes: up to 8 of version 3, the others of later versions of the draft."""


def _refusal(code: int, packet: Packet) -> IntegrationError:
    kind, meaning = _STATUS.get(code, (PermanentError, f"refused with the code {code}"))
    try:
        said = packet.text().decode("utf-8", "replace")
    except Dropped:
        said = ""  # some servers omit the message
    return kind(f"{meaning}: {said[:MAX_MESSAGE_CHARS]}" if said else meaning)
