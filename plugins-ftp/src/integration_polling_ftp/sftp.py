"""The SFTP session of an account: listings, and transfers of many files at a time."""

from __future__ import annotations

import asyncio
import stat
import time
from asyncio import Future, Task
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import asyncssh

from core import IntegrationError, PermanentError, RateLimited, TransientError
from integration_polling_ftp import names
from integration_polling_ftp.account import Config, Credentials
from integration_polling_ftp.connection import Job, Stat, Write
from integration_polling_ftp.errors import Dropped, Missing, Unsupported, without_secrets
from integration_polling_ftp.listing import Entry, Kind
from integration_polling_ftp.listing.entry import MAX_SIZE
from integration_polling_ftp.server_hashes import BYTES_PER_SECOND
from integration_polling_ftp.sftp_protocol import HASH, Attributes, Name, SftpChannel
from integration_polling_ftp.ssh import Login, ssh_errors
from integration_polling_ftp.ssh_commands import sha256sum
from integration_polling_ftp.ssh_loop import Loop
from integration_polling_ftp.writer_thread import WriterThread

T = TypeVar("T")

FILES_AHEAD = 32
"""The number of small files that are requested at a time."""

AHEAD_BYTES = 4 * 1024**2
AHEAD_BYTES_OF_MANY = 256 * 1024
"""The bytes that are requested at a time: of one file, and of each of many."""

WINDOW_BYTES = 8 * 1024**2
"""The bytes that the server may send. Each half of them costs a message that permits more."""

MAX_LISTING_BYTES = 2 * 1024**3
"""The maximum size of a listing."""

ENTRY_BYTES = 100
"""The bytes that an entry counts, besides its name."""

MAX_EMPTY = 100
"""The number of replies without an entry, one after another, until a listing fails."""

_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
}
_LETTERS: dict[bytes, Kind] = {b"-": "file", b"d": "directory", b"l": "link"}


class SftpSession:
    """An SFTP session of one account. It implements `Connection`."""

    lists_facts = False
    source = "SFTP"

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._config = config
        self._credentials = credentials
        self._login = Login(config, credentials)
        self._loop: Loop | None = None
        self._opened: list[asyncssh.SSHClientConnection] = []
        self._channel: SftpChannel | None = None
        self._checks_files = True
        self._max_hashed_bytes = int(config.timeout_seconds * BYTES_PER_SECOND)
        self.login_seconds = 0.0
        self.round_trip = 0.0

    def close(self) -> None:
        """Close the connection, if it is open, and end everything that waits for it."""
        loop, self._loop, self._channel = self._loop, None, None
        opened, self._opened = self._opened, []
        if loop is None:
            return
        try:
            for connection in reversed(opened):
                connection.abort()
        finally:
            loop.close()

    def ping(self) -> None:
        """Ask for the path of the current directory."""
        self._call(lambda channel: channel.real_path(b"."))

    def description(self) -> dict[str, str]:
        """Return the protocol and the name of the server's program."""
        self.ping()
        software = self._opened[-1].get_extra_info("server_version") if self._opened else ""
        return {"Protocol": "SFTP", "Software": str(software or "unknown")}

    def home(self) -> str:
        """Return the directory after the login."""
        found = self._call(lambda channel: channel.real_path(b"."))
        return names.to_text(found.decode("latin-1"), self._config.encoding)

    def enter(self, path: str) -> None:
        """Check that a path is a directory that can be listed."""
        if self._kind(path) != "directory":
            raise Missing(f"not a directory: {path}")
        handle = self._ask(lambda channel: channel.open_directory(self.wire(path)))
        self._opened_channel.close(handle)

    def wire(self, path: str) -> bytes:
        """Return the bytes of a stored path."""
        return names.to_wire(path, self._config.encoding).encode("latin-1")

    def text(self, entry: Entry) -> str:
        """Return the name of an entry as it is stored."""
        return entry.text

    def is_safe(self, entry: Entry) -> bool:
        """Return True if the name is one part of a path. Its other bytes do not matter."""
        return entry.name not in ("", ".", "..") and not {"/", "\0"} & set(entry.name)

    # Listings

    def entries(self, path: str) -> Iterator[Entry | str]:
        """List a directory, a portion at a time."""
        handle = self._call(lambda channel: channel.open_directory(self.wire(path)))
        size = empty = 0
        try:
            while (portion := self._ask(lambda each: each.read_directory(handle))) is not None:
                empty = 0 if portion else empty + 1
                size += sum(len(each.name) + ENTRY_BYTES for each in portion)
                if size > MAX_LISTING_BYTES or empty > MAX_EMPTY:
                    self.close()
                    raise TransientError(f"the listing has over {MAX_LISTING_BYTES:,} bytes")
                yield from (_entry(each, self._config.encoding) for each in portion)
        finally:
            if self._channel is not None:
                self._channel.close(handle)

    def kinds(self, path: str) -> dict[str, Kind]:
        """Return the kinds of the names in a directory."""
        found = (each for each in self.entries(path) if isinstance(each, Entry))
        return {self.text(each): each.kind for each in found}

    # Facts of one path

    def target_kind(self, path: str) -> Kind:
        """Return the kind of a path, or of a link's target; `file` if the server refuses it."""
        try:
            return self._kind(path)
        except Missing:
            return "file"

    def unique(self, path: str) -> str | None:
        """Return the path without links, which all paths of a directory share."""
        return self._call(lambda channel: channel.real_path(self.wire(path))).decode("latin-1")

    def stat(self, path: str) -> Stat:
        """Return the size and time of a file, or of a link's target."""
        try:
            return _stat(self._call(lambda channel: channel.stat(self.wire(path))))
        except Missing:
            return Stat()

    follow = stat

    def stats(self, paths: Sequence[str]) -> dict[str, Stat]:
        """Return the sizes and times of files, requested together."""
        found: dict[str, Stat] = {}
        for first in range(0, len(paths), FILES_AHEAD):
            portion = paths[first : first + FILES_AHEAD]
            found |= self._call(lambda channel, portion=portion: self._stats(channel, portion))  # type: ignore[misc]
        return found

    def times(self, paths: Sequence[str]) -> dict[str, str]:
        """Return nothing: listings have the exact times."""
        return {}

    async def _stats(self, channel: SftpChannel, paths: Sequence[str]) -> dict[str, Stat]:
        asked = {path: channel.stat(self.wire(path)) for path in paths}
        found: dict[str, Stat] = {}
        for path, future in asked.items():
            try:
                found[path] = _stat(await future)
            except PermanentError:
                found[path] = Stat()
        return found

    def _kind(self, path: str) -> Kind:
        return _kind_of(self._call(lambda channel: channel.stat(self.wire(path))))

    # Hashes

    @property
    def hash_algorithm(self) -> str:
        """`sha256`; empty if the server does not compute it, as far as that is known."""
        can_hash = self._checks_files or self._config.sha256sum
        return HASH.decode() if can_hash and self._max_hashed_bytes else ""

    def hash(self, path: str, size: int) -> str:
        """Return the server's hash of a file as `algorithm:digits`; empty if it gives none.

        The server computes it with the extension `check-file`, or its shell does, if the account
        permits that. A server that does not answer in time is not asked again.
        """
        if not self.hash_algorithm or size > self._max_hashed_bytes:
            return ""
        self.ping()
        try:
            digits = self._ask(lambda channel: self._hash(channel, self.wire(path)))
        except (TransientError, Unsupported):
            self._max_hashed_bytes = 0
            return ""
        except PermanentError:
            return ""
        return f"{HASH.decode()}:{digits}" if digits else ""

    async def _hash(self, channel: SftpChannel, path: bytes) -> str:
        if self._checks_files:
            try:
                return await channel.hash(path)
            except Unsupported:
                self._checks_files = False
        return await sha256sum(self._opened[-1], path) if self._config.sha256sum else ""

    # Transfers

    def retrieve(self, path: str, write: Write, offset: int = 0) -> None:
        """Pass the bytes of a file to `write`, with several reads requested at a time.

        `write` is called in another thread. All calls have ended when the method returns or raises.
        """
        self.ping()
        with _local_errors(), WriterThread(write) as writer:
            self._run(self._fetch(path, writer.write, offset, AHEAD_BYTES))

    def retrieve_many(self, jobs: Iterable[Job]) -> Iterator[tuple[str, IntegrationError | None]]:
        """Fetch files, up to `FILES_AHEAD` of them at a time. They are yielded in their order."""
        self.ping()
        remaining = iter(jobs)
        pending: deque[tuple[str, Task[IntegrationError | None]]] = deque()
        try:
            while True:
                while len(pending) < FILES_AHEAD and (job := next(remaining, None)):
                    assert self._loop is not None
                    pending.append((job[0], self._loop.start(self._outcome(*job))))
                if not pending:
                    return
                path, task = pending.popleft()
                with _local_errors():
                    error = self._run(task)
                if isinstance(error, Dropped | RateLimited):
                    raise error
                yield path, error
        except BaseException:
            self.close()
            raise

    async def _outcome(self, path: str, write: Write) -> IntegrationError | None:
        try:
            with ssh_errors():
                await self._fetch(path, write, 0, AHEAD_BYTES_OF_MANY)
        except IntegrationError as error:
            return error
        return None

    async def _fetch(self, path: str, write: Write, offset: int, ahead: int) -> None:
        channel = self._opened_channel
        handle = await channel.open(self.wire(path))
        try:
            await _read(channel, handle, write, offset, ahead)
        finally:
            channel.close(handle)

    # The connection

    @property
    def _opened_channel(self) -> SftpChannel:
        assert self._channel is not None
        return self._channel

    def _call(self, operation: Callable[[SftpChannel], Awaitable[T]]) -> T:
        """Run an operation, over a new connection if the current one is lost."""
        if self._channel is not None:
            with suppress(Dropped):
                return self._ask(operation)
        self._open()
        return self._ask(operation)

    def _ask(self, operation: Callable[[SftpChannel], Awaitable[T]]) -> T:
        """Send the request of an operation over the open connection."""

        async def ask() -> T:
            return await operation(self._opened_channel)

        return self._run(ask())

    def _run(self, operation: Awaitable[T]) -> T:
        """Run an operation to its end, as long as the server answers within the timeout."""
        assert self._loop is not None
        try:
            with ssh_errors():
                result = self._loop.run(operation)
                if self._channel is not None:
                    self._channel.flush()  # the loop does not run until the next operation
                return result
        except IntegrationError as error:
            if isinstance(error, TransientError | RateLimited):
                self.close()
            password = self._credentials.password.get_secret_value()
            error.args = tuple(without_secrets(str(each), password) for each in error.args)
            raise
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self.close()
        asyncssh.set_log_level("WARNING")
        began = time.monotonic()
        self._loop = Loop(self._config.timeout_seconds)
        try:
            self._run(self._start(self._loop))
        except BaseException:
            self.close()
            raise
        self.login_seconds = time.monotonic() - began

    async def _start(self, loop: Loop) -> None:
        await self._login.open(self._opened)
        loop.answered()
        try:
            made: Any = await self._opened[-1].create_session(
                lambda: SftpChannel(loop.answered), subsystem="sftp", encoding=None,
                window=WINDOW_BYTES,
            )  # fmt: skip
        except asyncssh.ChannelOpenError as error:
            await asyncio.sleep(0)  # asyncssh is about to call `connection_lost`
            raise self._login.lost or error from None
        channel: SftpChannel = made[1]
        try:
            await channel.start()
            asked = time.monotonic()
            await channel.real_path(b".")
        except PermanentError as error:
            raise Dropped(f"the server refuses an SFTP session: {error}") from None
        self.round_trip = time.monotonic() - asked
        self._channel = channel


async def _read(channel: SftpChannel, handle: bytes, write: Write, offset: int, ahead: int) -> None:
    """Pass the bytes of an open file to `write`, in their order.

    A server may send less than requested. Nothing beyond the file's size is requested, until the
    file turns out to be longer. When half of the requested bytes have arrived, the next ones are
    requested together.

    Args:
      channel: The channel.
      handle: The open file.
      write: The receiver.
      offset: The first byte.
      ahead: The bytes that are requested at a time.
    """
    reads: deque[tuple[int, Future[memoryview]]] = deque()
    following, size = offset, 0
    portion = channel.read_bytes
    facts = channel.stat_open(handle)
    while True:
        is_low = 2 * len(reads) * portion <= ahead
        while not reads or (is_low and (len(reads) + 1) * portion <= ahead and following < size):
            reads.append((following, channel.read(handle, following, portion)))
            following += portion
        size = await _size(facts)
        position, read = reads.popleft()
        end, data = position + portion, await read
        while data:
            _write(write, data)
            position += len(data)
            if position == end:
                break
            if position >= size > 0:
                return
            data = await channel.read(handle, position, end - position)
        else:
            return


async def _size(facts: Future[Attributes]) -> int:
    """Return the size of an open file; 0 if the server does not give it."""
    try:
        return (await facts).size or 0
    except PermanentError:
        return 0


class _LocalError(Exception):
    """An error of the receiver.

    Args:
      error: The receiver's own exception.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def _write(write: Write, data: memoryview) -> None:
    try:
        write(data)
    except OSError as error:
        raise _LocalError(error) from None


@contextmanager
def _local_errors() -> Iterator[None]:
    """Raise the receiver's own exceptions: an error of the local disk is not a lost connection."""
    try:
        yield
    except _LocalError as local:
        raise local.error from None


def _entry(name: Name, encoding: str) -> Entry:
    kind = _kind_of(name.attributes, name.line)
    facts = _stat(name.attributes) if kind != "other" else Stat()
    return Entry(name.name.decode("latin-1"), kind, facts.size, facts.modified, encoding=encoding)


def _kind_of(attributes: Attributes, line: bytes = b"") -> Kind:
    """Return the kind by the mode, or by the first letter of the line, as `ls -l` shows it."""
    if attributes.mode is None or not stat.S_IFMT(attributes.mode):
        return _LETTERS.get(line[:1], "other" if line else "file")
    return _KINDS.get(stat.S_IFMT(attributes.mode), "other")


def _stat(attributes: Attributes) -> Stat:
    """Return the size and time of a file or link; nothing of another kind has a size."""
    if _kind_of(attributes) not in ("file", "link"):
        return Stat()  # a reader of a pipe would wait for ever
    modified = ""
    if attributes.modified is not None:
        modified = f"{datetime.fromtimestamp(attributes.modified, UTC):%Y%m%d%H%M%S}"
    size = attributes.size
    return Stat(size if size is None or size <= MAX_SIZE else None, modified)
