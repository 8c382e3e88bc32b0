"""Questions that may take long in a large installation, bounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import QueryCanceled

from core.db.pool import Conn
from core.errors import InvalidInput

BOUND = "SELECT set_config('statement_timeout', %s, true)"

LONGEST_SECONDS = 20.0


@contextmanager
def within(conn: Conn, seconds: float = LONGEST_SECONDS) -> Iterator[None]:
    """A transaction, each of whose statements may take so long.

    Raises:
      InvalidInput: One took longer.
    """
    try:
        with conn.transaction():
            conn.execute(BOUND, (f"{seconds * 1000:.0f}",))
            yield
    except QueryCanceled:
        raise InvalidInput("looking for this takes too long", "Name an account") from None
