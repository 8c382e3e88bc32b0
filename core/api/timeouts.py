"""Questions that may take long in a large installation, bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import QueryCanceled

from core.db.pool import Conn
from core.errors import InvalidInput, ServerUnavailable

BOUND = "SELECT set_config('statement_timeout', %s, true)"

LONGEST_SECONDS = 20.0

MOST_AT_ONCE = 10
"""Of one process, which has twenty connections and forty threads: what asks for little is answered meanwhile."""

_slots = threading.BoundedSemaphore(MOST_AT_ONCE)


@contextmanager
def within(conn: Conn, seconds: float = LONGEST_SECONDS) -> Iterator[None]:
    """A transaction, each of whose statements may take so long.

    Raises:
      InvalidInput: One took longer.
      ServerUnavailable: Too many such questions are being asked already.
    """
    if not _slots.acquire(blocking=False):
        raise ServerUnavailable("too much is being looked for at once", "Try again in some seconds")
    try:
        with conn.transaction():
            conn.execute(BOUND, (f"{seconds * 1000:.0f}",))
            yield
    except QueryCanceled:
        raise InvalidInput("looking for this takes too long", "Name an account, or use rarer words") from None
    finally:
        _slots.release()
