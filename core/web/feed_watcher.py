"""Waiting for changes. All readers share one query, four times a second.

A reader that waits occupies a connection of the server. Each user has a bound, so that one user's
readers cannot use all connections. After a change, only some readers read at the same time.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from core.service.backend import Backend
from core.service.content import changes
from core.web.problems import HttpProblem

SECONDS = 0.25
"""The interval between two queries."""

MAX_READERS = 500
"""The maximum number of requests that wait for changes in one process."""

MAX_READERS_PER_USER = 20
"""The maximum number of requests of one user, or of one operator's token, that wait for changes."""

MAX_CONCURRENT_READS = 4
"""Waiting readers that read concurrently. They wake together, and leave threads for others."""


class FeedWatcher:
    """A watcher of the change feed that caches its end for `SECONDS`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = asyncio.Lock()
        self._ended = asyncio.Event()
        self._newest = -1
        self._read_at = 0.0
        self._readers: Counter[str | UUID] = Counter()
        self.reading = asyncio.Semaphore(MAX_CONCURRENT_READS)

    @contextmanager
    def reader(self, user: str | UUID) -> Iterator[None]:
        """Count a reader while it waits.

        Args:
          user: The user, or the ID of an operator's token.

        Raises:
          HttpProblem: The user, or all users together, have too many waiting readers.
        """
        if self._readers[user] >= MAX_READERS_PER_USER:
            raise HttpProblem("readers-busy")
        if self._readers.total() >= MAX_READERS:
            raise HttpProblem("server-busy")
        self._readers[user] += 1
        try:
            yield
        finally:
            self._readers[user] -= 1
            self._readers += Counter()  # removes zero counts

    async def newest(self) -> int:
        """Return the transaction id of the newest change, at most `SECONDS` old."""
        async with self._lock:
            if time.monotonic() - self._read_at >= SECONDS:
                self._newest = await run_in_threadpool(self._read)
                self._read_at = time.monotonic()
            return self._newest

    async def wait_beyond(
        self, xid: int, seconds: float, disconnected: Callable[[], Awaitable[bool]]
    ) -> bool:
        """Wait until the feed has a change after `xid`, the client is gone, or the server stops.

        Args:
          xid: A transaction id, as returned by `newest`.
          seconds: The maximum time to wait.
          disconnected: A function that returns True when the client is gone.

        Returns:
          True if there is such a change.
        """
        deadline = time.monotonic() + seconds
        while await self.newest() <= xid:
            left = deadline - time.monotonic()
            if left <= 0 or self.ended or await disconnected():
                return False
            await self.pause(min(SECONDS, left))
        return True

    async def pause(self, seconds: float) -> None:
        """Wait for `seconds`, or until the server stops."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)

    @property
    def ended(self) -> bool:
        """True if the server is stopping."""
        return self._ended.is_set()

    def end(self) -> None:
        """Wake all waiting readers. Call it in the event loop."""
        self._ended.set()

    def _read(self) -> int:
        with self._backend.database.connection() as conn:
            return changes.latest_xid(conn)
