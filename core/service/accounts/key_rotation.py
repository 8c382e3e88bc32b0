"""Re-encrypt the credentials of all accounts with the newest key."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from core.accounts import store
from core.db.pool import Conn
from core.service.backend import Backend

COUNT = "SELECT count(*) FROM user_integration WHERE credentials IS NOT NULL"


def count_sealed(conn: Conn) -> int:
    """Count the accounts that have credentials."""
    row = conn.execute(COUNT).fetchone()
    return row[0] if row else 0


def rotate(backend: Backend) -> Iterator[int]:
    """Encrypt all credentials with the first key, in batches; yield the size of each batch.

    Raises:
      VaultError: No key decrypts the credentials of an account. Earlier batches are committed.
    """
    last, count = UUID(int=0), 1
    while count:
        with backend.database.connection() as conn, conn.transaction():
            rows = conn.execute(store.LOCK_SEALED, (last,)).fetchall()
            for account, sealed in rows:
                conn.execute(store.RESEAL, (backend.vault.rotate(sealed), account))
                last = account
        count = len(rows)
        yield count
