"""Erase the data of an account or a user: rows, and blobs that no other row references."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from core.content.blobs import UNREFERENCED_SECONDS
from core.db.pool import Conn
from core.errors import NotFound, StoreUnavailable, WrongState
from core.ledger import quotas
from core.ledger.looks import wait_until_seen
from core.ledger.monotonic import old_enough
from core.service.accounts import disconnect as account_disconnect
from core.service.backend import Backend
from core.states import AccountState

SETTLED_SECONDS = 3600.0
"""Seconds since the last write of an unreferenced blob after which it may be deleted.

A younger blob may belong to a result that is not saved yet. The time must also have passed on the
monotonic clocks of the leaders.
"""

ACCOUNTS = "SELECT id FROM user_integration WHERE user_id = %s ORDER BY created_at, id LIMIT 100"
BLOBS = """
SELECT DISTINCT blob_key FROM user_integration_content
WHERE user_integration_id = %s AND blob_key IS NOT NULL
"""
# The leader collects blobs that were touched before the grace period. A later writer of the same
# content touches its blob again.
BACKDATE_UNREFERENCED = """
UPDATE blob b SET touched_at = least(touched_at, now() - %(seconds)s * interval '1 second'),
    unreferenced_at = now() - interval '1 day'
WHERE key = ANY(%(keys)s)
  AND NOT EXISTS (SELECT FROM user_integration_content c WHERE c.blob_key = b.key)
"""
# While the row is locked, no run begins and the account cannot be connected. If either happened
# before the lock, another round erases the new data.
LOCK_ACCOUNT_TO_ERASE = "SELECT id FROM user_integration WHERE id = %s FOR UPDATE"
DELETE_ACCOUNT = f"""
DELETE FROM user_integration a WHERE id = %s AND sync_status = '{AccountState.DISCONNECTED}'
  AND NOT EXISTS (SELECT FROM sync_run r WHERE r.user_integration_id = a.id)
  AND NOT EXISTS (SELECT FROM user_integration_content c WHERE c.user_integration_id = a.id)
"""
DELETE_FLOWS = "DELETE FROM oauth_flow WHERE user_id = %s"
# Recorded responses to an operator's requests also contain the user id, for a day.
DELETE_RESPONSES = "DELETE FROM idempotency_key WHERE answer->>'user_id' = %s"
DELETE_TOKENS = "DELETE FROM api_token WHERE user_id = %s"
# A request with one of the tokens may still check an account. It locks its token to store the
# account: either before this statement returns, or never.
LOCK_TOKENS = "SELECT FROM api_token WHERE user_id = %s ORDER BY id FOR UPDATE"


@dataclass(slots=True)
class Erased:
    """The number of erased accounts, rows and blobs."""

    accounts: int = 0
    rows: int = 0
    blobs: int = 0


def erase_account(backend: Backend, account: UUID) -> Erased:
    """Disconnect an account and delete all its data and its row.

    No worker starts a task of the account any more before its data are deleted.

    After an interruption, call it again to finish. Once the last content is deleted, the change
    feed has an entry that the account was erased.

    Raises:
      NotFound: The account does not exist.
    """
    account_disconnect.disconnect_account(backend, account)
    return _erase(backend, account, Erased())


def _erase(backend: Backend, account: UUID, total: Erased) -> Erased:
    """Erase a disconnected account; if it is reconnected in the meantime, disconnect it again."""
    keys: set[str] = set()
    gone = False
    while not gone:
        with backend.database.connection() as conn:
            before = account_disconnect.disconnect(conn, account)
            keys.update(key for (key,) in conn.execute(BLOBS, (account,)))
        if before != AccountState.DISCONNECTED:
            wait_until_seen(backend.database)
        with backend.database.connection() as conn, suppress(WrongState):  # reconnected
            for count in account_disconnect.erase(conn, account):
                total.rows += count
            gone = _delete_account(conn, account)
    total.accounts += 1
    total.blobs += _erase_blobs(backend, sorted(keys))
    return total


def _delete_account(conn: Conn, account: UUID) -> bool:
    """Delete the row; return False if the account was reconnected during the erasure."""
    with conn.transaction():
        conn.execute(LOCK_ACCOUNT_TO_ERASE, (account,))
        return conn.execute(DELETE_ACCOUNT, (account,)).rowcount > 0


def erase_user(backend: Backend, user_id: str) -> Erased:
    """Delete all data of a user: accounts, content, blobs, pending connections and tokens.

    The quotas of the user stay, because an operator has set them.
    """
    total = Erased()
    while True:
        with backend.database.connection() as conn:
            accounts = [account for (account,) in conn.execute(ACCOUNTS, (user_id,))]
            if not accounts:
                if _delete_user(conn, user_id):
                    return total
                continue
            for account in accounts:
                with suppress(NotFound):  # another process erased it
                    account_disconnect.disconnect(conn, account)
        wait_until_seen(backend.database)
        for account in accounts:
            with suppress(NotFound):
                _erase(backend, account, total)


def _delete_user(conn: Conn, user_id: str) -> bool:
    """Delete all other rows of a user; return False if there is an account."""
    with conn.transaction():
        conn.execute(LOCK_TOKENS, (user_id,))
        if conn.execute(ACCOUNTS, (user_id,)).fetchone() is not None:
            return False
        for statement in (DELETE_FLOWS, DELETE_RESPONSES, DELETE_TOKENS):
            conn.execute(statement, (user_id,))
        quotas.erase(conn, user_id)
    return True


def _erase_blobs(backend: Backend, keys: list[str]) -> int:
    """Delete the blobs that no other content references; return their number.

    The leader deletes younger blobs about an hour later.
    """
    if not keys:
        return 0
    gone = 0
    with backend.database.connection() as conn:
        before = old_enough(conn, SETTLED_SECONDS)
    if before is not None:  # the leader deletes the rest later
        with suppress(StoreUnavailable):
            gone = backend.blobs.collect(
                grace=SETTLED_SECONDS, most=len(keys), keys=keys, before=before
            )
    with backend.database.connection() as conn:
        conn.execute(
            BACKDATE_UNREFERENCED, {"keys": keys, "seconds": UNREFERENCED_SECONDS - SETTLED_SECONDS}
        )
    return gone
