"""Waiting for changes: the database is polled four times a second for any number of readers."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from core.service.backend import Backend
from core.service.content import changes

SECONDS = 0.25


class FeedWatcher:
    """How far the change feed reaches, as it was a moment ago."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = asyncio.Lock()
        self._ended = asyncio.Event()
        self._newest = -1
        self._looked = 0.0

    async def newest(self) -> int:
        """How far it reaches; what was looked up a moment ago will do."""
        async with self._lock:
            if time.monotonic() - self._looked >= SECONDS:
                self._newest = await run_in_threadpool(self._look)
                self._looked = time.monotonic()
            return self._newest

    async def wait_beyond(self, place: int, seconds: float) -> bool:
        """Wait until it reaches further, for so many seconds at most, or until the server ends.

        Returns whether it does.
        """
        deadline = time.monotonic() + seconds
        while await self.newest() <= place:
            left = deadline - time.monotonic()
            if left <= 0 or self.ended:
                return False
            await self.pause(min(SECONDS, left))
        return True

    async def pause(self, seconds: float) -> None:
        """Wait for so long, or until the server ends."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)

    @property
    def ended(self) -> bool:
        """Whether nobody shall wait any more."""
        return self._ended.is_set()

    def end(self) -> None:
        """Let all go who wait; called in the event loop."""
        self._ended.set()

    def _look(self) -> int:
        with self._backend.database.connection() as conn:
            return changes.latest_xid(conn)
