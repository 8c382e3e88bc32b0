"""Slots of each user for requests: one user's slow requests leave threads and memory for others.

Only the thread of the event loop uses them. A request waits for its slot without a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from core.web.problems import HttpProblem

MAX_REQUESTS_PER_USER = 10
"""The number of requests of one user that one process handles concurrently, with its 40 threads.

A request that waits for changes has no slot, and neither has a page that updates itself.
"""

MAX_DOWNLOADS_PER_USER = 10
"""The number of responses in several portions that one user may receive concurrently."""

MAX_WAITING_PER_USER = 90
"""The number of requests of one user that wait for a slot."""

SLOT_TIMEOUT_SECONDS = 10.0
"""Seconds that a request waits for a slot."""

User = str | UUID


class UserSlots:
    """A number of slots for each user.

    Args:
      most: The number of slots of one user.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._slots: dict[User, asyncio.Semaphore] = {}
        self._count: dict[User, int] = {}  # requests with a slot, and those that wait for one

    async def take(self, user: User, seconds: float | None = SLOT_TIMEOUT_SECONDS) -> bool:
        """Take a slot of a user, in the order of the requests.

        Args:
          user: The user, or the ID of an operator's token.
          seconds: Seconds to wait. None: wait without a limit.

        Returns:
          True if the request had to wait.

        Raises:
          HttpProblem: No slot became free in time, or too many requests of the user wait.
        """
        if self._count.get(user, 0) >= self._most + MAX_WAITING_PER_USER:
            raise HttpProblem("user-busy")
        self._count[user] = self._count.get(user, 0) + 1
        slots = self._slots.setdefault(user, asyncio.Semaphore(self._most))
        waits = slots.locked()
        try:
            async with asyncio.timeout(seconds):
                await slots.acquire()
        except BaseException as error:
            self._leave(user)
            if isinstance(error, TimeoutError):
                raise HttpProblem("user-busy") from None
            raise
        return waits

    def release(self, user: User) -> None:
        """Release a slot of a user."""
        self._slots[user].release()
        self._leave(user)

    def _leave(self, user: User) -> None:
        self._count[user] -= 1
        if not self._count[user]:
            del self._count[user], self._slots[user]

    @asynccontextmanager
    async def slot(self, user: User) -> AsyncIterator[None]:
        """Hold a slot of a user during the block, and wait for it without a limit."""
        await self.take(user, None)
        try:
            yield
        finally:
            self.release(user)
