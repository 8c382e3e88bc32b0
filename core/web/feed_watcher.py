"""Waiting for changes. All readers share one query, four times a second."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from core.service.backend import Backend
from core.service.content import changes

SECONDS = 0.25
"""The interval between two queries."""


class FeedWatcher:
    """A watcher of the change feed that caches its end for `SECONDS`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = asyncio.Lock()
        self._ended = asyncio.Event()
        self._newest = -1
        self._read_at = 0.0

    async def newest(self) -> int:
        """Return the transaction id of the newest change, at most `SECONDS` old."""
        async with self._lock:
            if time.monotonic() - self._read_at >= SECONDS:
                self._newest = await run_in_threadpool(self._read)
                self._read_at = time.monotonic()
            return self._newest

    async def wait_beyond(self, xid: int, seconds: float) -> bool:
        """Wait until the feed has a change after `xid`, or the server stops.

        Args:
          xid: A transaction id, as returned by `newest`.
          seconds: The maximum time to wait.

        Returns:
          True if there is such a change.
        """
        deadline = time.monotonic() + seconds
        while await self.newest() <= xid:
            left = deadline - time.monotonic()
            if left <= 0 or self.ended:
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
