"""SFTP (draft-ietf-secsh-filexfer-02), over a connection of asyncssh.

The event loop runs only while a method of the connection runs, in the caller's thread. So there is
no other thread, and the engine's guard on addresses sees each connection in its task's context.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import asyncssh
from asyncssh.sftp import SFTPClientFile

from core import IntegrationError, RateLimited, TransientError
from integration_polling_ftp import names
from integration_polling_ftp.account import Config, Credentials
from integration_polling_ftp.connection import Job, Stat, Write
from integration_polling_ftp.control import BLOCK
from integration_polling_ftp.errors import Dropped, Missing
from integration_polling_ftp.listing import Entry, Kind
from integration_polling_ftp.ssh import Login, ssh_errors

T = TypeVar("T")

FILES_AHEAD = 32
"""The number of small files that are requested at a time."""

READ_AHEAD = 8
READ_AHEAD_OF_MANY = 2
"""The number of blocks that are requested at a time: for one file, and for each of many."""

CANCELLATIONS = 4
"""The number of times that a task is cancelled: its cleanup may wait for a lost connection."""

NAMES = 200
"""The number of names of a listing that are read in one step."""

MAX_LISTED_BYTES = 2 * 1024**3
"""The maximum size of the names of a listing."""

_KINDS: dict[int, Kind] = {
    asyncssh.FILEXFER_TYPE_REGULAR: "file",
    asyncssh.FILEXFER_TYPE_DIRECTORY: "directory",
    asyncssh.FILEXFER_TYPE_SYMLINK: "link",
}
_LETTERS: dict[bytes, Kind] = {b"-": "file", b"d": "directory", b"l": "link"}


class SftpSession:
    """An SFTP session of one account. It implements `Connection`.

    It only reads: it opens files for reading, lists directories, and asks for attributes and paths.
    """

    lists_facts = False

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._config = config
        self._login = Login(config, credentials)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: list[asyncssh.SSHClientConnection] = []
        self._client: asyncssh.SFTPClient | None = None
        self._deadline: asyncio.Timeout | None = None
        self.login_seconds = 0.0
        self.round_trip = 0.0

    def close(self) -> None:
        """Close the connection, if it is open, and end everything that waits for it."""
        loop, self._loop, self._client = self._loop, None, None
        opened, self._opened = self._opened, []
        if loop is None:
            return
        try:
            for connection in reversed(opened):
                connection.abort()
            for _ in range(CANCELLATIONS):
                if not (tasks := asyncio.all_tasks(loop)):
                    break
                loop.run_until_complete(_cancelled(tasks))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def ping(self) -> None:
        """Ask for the path of the current directory."""
        self._call(lambda client: client.realpath(b"."))

    def enter(self, path: str) -> None:
        """Check that a path is a directory that can be listed."""
        if self._kind(path) != "directory":
            raise Missing(f"not a directory: {path}")

    def wire(self, path: str) -> bytes:
        """Return the bytes of a stored path."""
        return names.to_wire(path, self._config.encoding).encode("latin-1") or b"."

    def text(self, entry: Entry) -> str:
        """Return the name of an entry as it is stored."""
        return entry.text

    def is_safe(self, entry: Entry) -> bool:
        """Return True if the name is one part of a path. Its other bytes do not matter."""
        return entry.name not in ("", ".", "..") and not {"/", "\0"} & set(entry.name)

    # Listings

    def entries(self, path: str) -> Iterator[Entry | str]:
        """List a directory, a portion at a time."""
        wire = self.wire(path)
        scans: list[AsyncIterator[asyncssh.SFTPName]] = []

        async def begin(client: asyncssh.SFTPClient) -> list[asyncssh.SFTPName]:
            scans[:] = [client.scandir(wire)]
            return await self._some(scans[0])

        size, portion = 0, self._call(begin)
        while portion:
            for each in portion:
                size += len(each.filename)
                yield _entry(each, self._config.encoding)
            if size > MAX_LISTED_BYTES:
                self.close()
                raise TransientError(f"the listing has over {MAX_LISTED_BYTES:,} bytes")
            portion = self._run(self._some(scans[0]))

    async def _some(self, scan: AsyncIterator[asyncssh.SFTPName]) -> list[asyncssh.SFTPName]:
        found: list[asyncssh.SFTPName] = []
        async for name in scan:
            self._progress()
            found.append(name)
            if len(found) >= NAMES:
                break
        return found

    def links(self, path: str) -> set[str]:
        """Return the names of the links in a directory."""
        found = (each for each in self.entries(path) if isinstance(each, Entry))
        return {self.text(each) for each in found if each.kind == "link"}

    # Facts of one path

    def target_kind(self, path: str) -> Kind:
        """Return the kind of a path, or of a link's target; `file` if the server refuses it."""
        try:
            return self._kind(path)
        except Missing:
            return "file"

    def unique(self, path: str) -> str | None:
        """Return the path without links, which all paths of a directory share."""
        found: Any = self._call(lambda client: client.realpath(self.wire(path)))
        return found.decode("latin-1") if isinstance(found, bytes) else str(found)

    def stat(self, path: str) -> Stat:
        """Return the size and time of a file."""
        return self.follow(path)

    def stats(self, paths: Sequence[str]) -> dict[str, Stat]:
        """Return the sizes and times of files, requested together."""
        found: dict[str, Stat] = {}
        for first in range(0, len(paths), FILES_AHEAD):
            portion = paths[first : first + FILES_AHEAD]
            results = self._call(lambda client, portion=portion: self._stats(client, portion))  # type: ignore[misc]
            found.update(zip(portion, results, strict=True))
        return found

    async def _stats(self, client: asyncssh.SFTPClient, paths: Sequence[str]) -> list[Stat]:
        async def one(path: str) -> Stat:
            try:
                return _stat(await client.stat(self.wire(path)))
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPPermissionDenied):
                return Stat()

        return await asyncio.gather(*map(one, paths))

    def follow(self, path: str) -> Stat:
        """Return the size and time of a file, or of a link's target."""
        try:
            return _stat(self._call(lambda client: client.stat(self.wire(path))))
        except Missing:
            return Stat()

    def _kind(self, path: str) -> Kind:
        return _kind_of(self._call(lambda client: client.stat(self.wire(path))), b"")

    # Transfers

    def retrieve(self, path: str, write: Write, offset: int = 0) -> None:
        """Pass the bytes of a file to `write`, with several blocks requested at a time."""
        self.ping()
        self._run(self._fetch(path, write, offset, READ_AHEAD))

    def retrieve_many(self, jobs: Iterable[Job]) -> Iterator[tuple[str, IntegrationError | None]]:
        """Fetch files, up to `FILES_AHEAD` of them at a time. They are yielded in their order."""
        self.ping()
        remaining = iter(jobs)
        pending: deque[tuple[str, asyncio.Task[IntegrationError | None]]] = deque()
        try:
            while True:
                while len(pending) < FILES_AHEAD and (job := next(remaining, None)):
                    assert self._loop is not None
                    pending.append((job[0], self._loop.create_task(self._outcome(*job))))
                if not pending:
                    return
                path, task = pending.popleft()
                error = self._run(_result(task))
                if isinstance(error, Dropped | RateLimited):
                    raise error
                yield path, error
        except BaseException:
            self.close()
            raise

    async def _outcome(self, path: str, write: Write) -> IntegrationError | None:
        try:
            with ssh_errors():
                await self._fetch(path, write, 0, READ_AHEAD_OF_MANY)
        except IntegrationError as error:
            return error
        return None

    async def _fetch(self, path: str, write: Write, offset: int, ahead: int) -> None:
        assert self._client is not None
        file: SFTPClientFile = await self._client.open(self.wire(path), "rb")
        try:
            block = _block(file)
            first, attributes = await asyncio.gather(_read(file, block, offset), file.stat())
            self._progress()
            write(memoryview(first))
            if len(first) == block:
                await self._rest(file, write, offset + block, attributes.size, ahead)
        finally:
            with suppress(asyncssh.Error, OSError):
                await file.close()

    async def _rest(
        self, file: SFTPClientFile, write: Write, offset: int, size: int | None, ahead: int
    ) -> None:
        """Read blocks in their order, `ahead` of them requested, up to the size or the end."""
        block = _block(file)
        pending: deque[asyncio.Task[bytes]] = deque()
        try:
            while True:
                while len(pending) < ahead and (size is None or offset < size):
                    pending.append(asyncio.create_task(_read(file, block, offset)))
                    offset += block
                if not pending:
                    return
                data = await pending.popleft()
                self._progress()
                write(memoryview(data))
                if len(data) < block:
                    return
        finally:
            for task in pending:
                task.cancel()
            await _ended(pending)

    # The connection

    def _call(self, operation: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        """Run an operation, over a new connection if the current one is lost."""
        if self._client is not None:
            with suppress(Dropped):
                return self._run(operation(self._client))
        self._open()
        assert self._client is not None
        return self._run(operation(self._client))

    def _run(self, operation: Awaitable[T]) -> T:
        """Run an operation to its end, as long as the server answers within the timeout."""
        assert self._loop is not None
        try:
            with ssh_errors():
                return self._loop.run_until_complete(self._timed(operation))
        except IntegrationError as error:
            if isinstance(error, TransientError | RateLimited):
                self.close()
            raise
        except BaseException:
            self.close()
            raise

    async def _timed(self, operation: Awaitable[T]) -> T:
        async with asyncio.timeout(self._config.timeout_seconds) as deadline:
            self._deadline = deadline
            try:
                return await operation
            finally:
                self._deadline = None  # files that are read ahead may still bring answers

    def _progress(self) -> None:
        """Extend the deadline: the server has answered."""
        if self._deadline is not None and not self._deadline.expired():
            now = asyncio.get_running_loop().time()
            self._deadline.reschedule(now + self._config.timeout_seconds)

    def _open(self) -> None:
        self.close()
        asyncssh.set_log_level("WARNING")
        began = time.monotonic()
        connection = self._login.connect()
        self._loop = asyncio.new_event_loop()
        try:
            self._run(self._start(connection))
        except BaseException:
            self.close()
            raise
        finally:
            if not self._opened:
                connection.close()
        self.login_seconds = time.monotonic() - began

    async def _start(self, connection: Any) -> None:
        opened = await self._login.open(connection, self._opened)
        self._progress()
        client = await opened.start_sftp_client()
        asked = time.monotonic()
        await client.realpath(b".")
        self.round_trip = time.monotonic() - asked
        self._client = client


async def _result(task: asyncio.Task[T]) -> T:
    return await task


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    ended, _ = await asyncio.wait(tasks, timeout=0.5)
    for task in ended:
        if not task.cancelled():
            task.exception()  # it is expected here


async def _ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


async def _read(file: SFTPClientFile, size: int, offset: int) -> bytes:
    data: Any = await file.read(size, offset)
    return bytes(data)


def _block(file: SFTPClientFile) -> int:
    """Return the size of a block: the largest answers of the server, up to `BLOCK`."""
    length = file.read_len or BLOCK
    return length * max(1, BLOCK // length)


def _entry(name: asyncssh.SFTPName, encoding: str) -> Entry:
    raw, long = name.filename, name.longname or b""
    assert isinstance(raw, bytes)
    kind = _kind_of(name.attrs, long if isinstance(long, bytes) else long.encode())
    stat = _stat(name.attrs) if kind != "other" else Stat()
    return Entry(raw.decode("latin-1"), kind, stat.size, stat.modified, encoding=encoding)


def _kind_of(attributes: asyncssh.SFTPAttrs, long: bytes) -> Kind:
    """Return the kind by the type, or by the first letter of the long form, as `ls` shows it."""
    if attributes.type == asyncssh.FILEXFER_TYPE_UNKNOWN:
        return _LETTERS.get(long[:1], "other" if long else "file")
    return _KINDS.get(attributes.type, "other")


def _stat(attributes: asyncssh.SFTPAttrs) -> Stat:
    """Return the size and time of a file or link; nothing of another kind has a size."""
    if _kind_of(attributes, b"") not in ("file", "link"):
        return Stat()  # a reader of a pipe would wait for ever
    modified = ""
    if attributes.mtime is not None:
        modified = f"{datetime.fromtimestamp(attributes.mtime, UTC):%Y%m%d%H%M%S}"
    return Stat(attributes.size, modified)
