"""Questions that may take long in a large installation, bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import QueryCanceled

from core.db.pool import Conn
from core.errors import InvalidInput, ServerUnavailable

BOUND = "SELECT set_config('statement_timeout', %s, true)"

MAX_QUERY_SECONDS = 20.0

MAX_CONCURRENT_QUERIES = 10
"""Slots of one process, which has 24 connections and forty threads.

Small requests are answered while the slots are full.
"""

MAX_WAITING_QUERIES = 9
PATIENCE_SECONDS = 2.0
"""A few more wait for a moment: many that ask at once do not ask for long.

Each of them holds a connection meanwhile.
"""

_slots = threading.BoundedSemaphore(MAX_CONCURRENT_QUERIES)
_waiting = threading.BoundedSemaphore(MAX_WAITING_QUERIES)


@contextmanager
def within(conn: Conn, seconds: float = MAX_QUERY_SECONDS) -> Iterator[None]:
    """A transaction, each of whose statements may take so long.

    Raises:
      InvalidInput: One took longer.
      ServerUnavailable: Too many such questions are being asked already.
    """
    if not _take_slot():
        raise ServerUnavailable("search-busy")
    try:
        with conn.transaction():
            conn.execute(BOUND, (f"{seconds * 1000:.0f}",))
            yield
    except QueryCanceled:
        raise InvalidInput("search-too-slow") from None
    finally:
        _slots.release()


def _take_slot() -> bool:
    if _slots.acquire(blocking=False):
        return True
    if not _waiting.acquire(blocking=False):
        return False
    try:
        return _slots.acquire(timeout=PATIENCE_SECONDS)
    finally:
        _waiting.release()
