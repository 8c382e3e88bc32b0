"""Slots: the places of a limit that counts instances, held until the instance is closed.

A process holds a slot as an advisory lock of PostgreSQL, in a session of its own
([decision 56](../../docs/decisions/0056-leased-connections.md)). PostgreSQL releases it when the
process dies, and keeps it while the process is stopped and its connections stay open.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from typing import Any

import psycopg

from core.db.errors import describe
from core.db.pool import Conn, open_connection
from core.errors import ServerUnavailable

# Takes the first free one of some locks. The set is small: the places of one limit.
TAKE_SLOT = "SELECT k FROM unnest(%s::bigint[]) AS k WHERE pg_try_advisory_lock(k) LIMIT 1"
RELEASE_SLOT = "SELECT pg_advisory_unlock(%s::bigint)"
IS_CONNECTED = "SELECT 1"
# Reads the lock table of the server, which has a row for each current lock.
COUNT_TAKEN_SLOTS = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND ((classid::bigint << 32) | objid::bigint) = ANY(%s::bigint[])
"""

CHECK_SECONDS = 2.0
"""Seconds between two checks that the session still holds the locks."""

MAX_PLACES = 1_000
"""The maximum number of places of one limit."""

log = logging.getLogger(__name__)


class AccountSlots:
    """The slots of a process, thread-safe.

    Args:
      url: The database's URL. The first slot opens the session.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._conn: Conn | None = None
        self._held: set[int] = set()
        self._checked = 0.0

    def take(self, key: str, places: int, allowed: int | None = None) -> int | None:
        """Take a free slot of a limit.

        Args:
          key: The key under which the fleet counts the limit.
          places: The number of places of the limit.
          allowed: The number of them that may be taken, if the limit is lowered. Default: all.

        Returns:
          The slot, for `release`; None if every slot is taken.

        Raises:
          ServerUnavailable: PostgreSQL does not answer.
        """
        if allowed is not None and allowed < places and self.count(key, places) >= allowed:
            return None
        with self._lock:
            free = [lock for lock in _locks(key, places) if lock not in self._held]
            row = self._ask(TAKE_SLOT, (free,))
            if row is None:
                return None
            self._held.add(row[0])
            return int(row[0])

    def release(self, slot: int) -> None:
        """Release a slot whose connection is closed."""
        with self._lock:
            self._held.discard(slot)
            try:
                self._ask(RELEASE_SLOT, (slot,))
            except ServerUnavailable as error:
                log.info("a slot is released when its session ends: %s", error)

    def count(self, key: str, places: int) -> int:
        """Return the number of slots of a limit that the fleet holds.

        Raises:
          ServerUnavailable: PostgreSQL does not answer.
        """
        with self._lock:
            row = self._ask(COUNT_TAKEN_SLOTS, (_locks(key, places),))
        return 0 if row is None else int(row[0])

    def check(self) -> None:
        """Take the slots again, if a restart of PostgreSQL has released them."""
        now = time.monotonic()
        with self._lock:
            if not self._held or now - self._checked < CHECK_SECONDS:
                return
            self._checked = now
            try:
                self._ask(IS_CONNECTED, ())
            except ServerUnavailable as error:
                log.info("could not check the slots of this process: %s", error)

    def close(self) -> None:
        """Close the session, which releases all slots."""
        with self._lock:
            self._held.clear()
            self._disconnect()

    def _ask(self, statement: str, params: tuple[object, ...]) -> tuple[Any, ...] | None:
        """Return the first row of a statement, in a new session if the old one is lost."""
        for last in (False, True):
            try:
                return self._session().execute(statement, params).fetchone()
            except psycopg.Error as error:
                self._disconnect()
                if last:
                    raise ServerUnavailable(
                        "postgres-unreachable", detail=describe(error)
                    ) from None
        return None

    def _session(self) -> Conn:
        """Return the session; a new one first takes the slots that this process still uses."""
        if self._conn is None:
            self._conn = open_connection(self._url)
            for slot in sorted(self._held):
                self._conn.execute(TAKE_SLOT, ([slot],))
        return self._conn

    def _disconnect(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


def _locks(key: str, places: int) -> list[int]:
    """Return the numbers of the locks that stand for the places of a limit, from 0 to 2**63 - 1."""
    return [
        int.from_bytes(
            hashlib.blake2b(f"polling/slot/{key}/{place}".encode(), digest_size=8).digest(), "big"
        )
        >> 1
        for place in range(min(places, MAX_PLACES))
    ]
