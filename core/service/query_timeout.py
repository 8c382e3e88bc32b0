"""Bounds on queries that are slow in a large installation: their duration and their number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import QueryCanceled

from core.db.pool import Conn
from core.errors import InvalidInput, ServerUnavailable
from core.service.slots import Slots

SET_TIMEOUT = "SELECT set_config('statement_timeout', %s, true)"

MAX_QUERY_SECONDS = 20.0
"""Default duration after which PostgreSQL cancels a slow query, in seconds."""

MAX_CONCURRENT_QUERIES = 10
"""Slow queries that one process runs concurrently, with its 24 connections and 40 threads.

Other requests are served while all slots are in use.
"""

MAX_QUERIES_PER_USER = 5
"""Slow queries that one process runs concurrently for one user: half, so that others search too."""

MAX_WAITING_QUERIES = 9
"""Slow queries that wait for a slot. Each of them uses a connection while it waits."""

SLOT_TIMEOUT_SECONDS = 2.0
"""Seconds that a query waits for a slot."""


class QuerySlots:
    """The slots for slow queries of one process."""

    def __init__(self) -> None:
        self._slots = Slots(
            MAX_CONCURRENT_QUERIES, MAX_QUERIES_PER_USER, MAX_WAITING_QUERIES, SLOT_TIMEOUT_SECONDS
        )

    @contextmanager
    def transaction(
        self, conn: Conn, seconds: float = MAX_QUERY_SECONDS, *, user: str | None
    ) -> Iterator[None]:
        """Run a transaction in a slot, and cancel a statement that takes too long.

        Args:
          conn: A connection.
          seconds: The timeout of each statement, in seconds.
          user: The user who reads, or whose rows an operator reads. None: an operator reads all.

        Raises:
          InvalidInput: A statement took longer.
          ServerUnavailable: All slots are in use, or the user has too many.
        """
        if not self._slots.take(user):
            raise ServerUnavailable("search-busy")
        try:
            with conn.transaction():
                conn.execute(SET_TIMEOUT, (f"{seconds * 1000:.0f}",))
                yield
        except QueryCanceled:
            raise InvalidInput("search-too-slow") from None
        finally:
            self._slots.release(user)
