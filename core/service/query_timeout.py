"""Bounds on queries that are slow in a large installation: their duration and their number."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import QueryCanceled

from core.db.pool import Conn
from core.errors import InvalidInput, ServerUnavailable

SET_TIMEOUT = "SELECT set_config('statement_timeout', %s, true)"

MAX_QUERY_SECONDS = 20.0
"""Default duration after which PostgreSQL cancels a slow query, in seconds."""

MAX_CONCURRENT_QUERIES = 10
"""Slow queries that one process runs concurrently, with its 24 connections and 40 threads.

Other requests are served while all slots are in use.
"""

MAX_WAITING_QUERIES = 9
"""Slow queries that wait for a slot. Each of them uses a connection while it waits."""

SLOT_TIMEOUT_SECONDS = 2.0
"""Seconds that a query waits for a slot."""


class QuerySlots:
    """The slots for slow queries of one process."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(MAX_CONCURRENT_QUERIES)
        self._waiting = threading.BoundedSemaphore(MAX_WAITING_QUERIES)

    @contextmanager
    def transaction(self, conn: Conn, seconds: float = MAX_QUERY_SECONDS) -> Iterator[None]:
        """Run a transaction in a slot, and cancel a statement that takes too long.

        Parameters:
          seconds: The timeout of each statement, in seconds.

        Raises:
          InvalidInput: A statement took longer.
          ServerUnavailable: All slots are in use.
        """
        if not self._take():
            raise ServerUnavailable("search-busy")
        try:
            with conn.transaction():
                conn.execute(SET_TIMEOUT, (f"{seconds * 1000:.0f}",))
                yield
        except QueryCanceled:
            raise InvalidInput("search-too-slow") from None
        finally:
            self._slots.release()

    def _take(self) -> bool:
        if self._slots.acquire(blocking=False):
            return True
        if not self._waiting.acquire(blocking=False):
            return False
        try:
            return self._slots.acquire(timeout=SLOT_TIMEOUT_SECONDS)
        finally:
            self._waiting.release()
