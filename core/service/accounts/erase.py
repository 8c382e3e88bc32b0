"""Erasing what was kept of an account, or of a person: rows, and the blobs that only they named."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from core.content.blobs import UNREFERENCED_SECONDS
from core.db.pool import Conn
from core.errors import NotFound, WrongState
from core.service.accounts import disconnect as account_disconnect
from core.service.backend import Backend
from core.states import AccountState

SETTLED_SECONDS = 3600.0
"""Seconds after which an unreferenced blob may be deleted.

A result that is not saved yet may name a blob that was touched later.
"""

ACCOUNTS = "SELECT id FROM user_integration WHERE user_id = %s ORDER BY created_at, id LIMIT 100"
BLOBS = """
SELECT DISTINCT blob_key FROM user_integration_content
WHERE user_integration_id = %s AND blob_key IS NOT NULL
"""
# The leader collects what was touched longer ago than the grace. A later writer of the same content
# touches it again.
HASTEN = """
UPDATE blob b SET touched_at = least(touched_at, now() - %(seconds)s * interval '1 second')
WHERE key = ANY(%(keys)s)
  AND NOT EXISTS (SELECT FROM user_integration_content c WHERE c.blob_key = b.key)
"""
TELL = """
INSERT INTO erased_account (user_integration_id) VALUES (%s)
ON CONFLICT (user_integration_id) DO UPDATE
SET changed_xid = pg_current_xact_id()::text::bigint, erased_at = now()
"""
# Once it is locked, no run begins and nothing is connected; what did so meanwhile is erased in
# another round.
LOCK_ACCOUNT = "SELECT id FROM user_integration WHERE id = %s FOR UPDATE"
FORGET_ACCOUNT = f"""
DELETE FROM user_integration a WHERE id = %s AND sync_status = '{AccountState.DISCONNECTED}'
  AND NOT EXISTS (SELECT FROM sync_run r WHERE r.user_integration_id = a.id)
  AND NOT EXISTS (SELECT FROM user_integration_content c WHERE c.user_integration_id = a.id)
"""
FORGET_FLOWS = "DELETE FROM oauth_flow WHERE user_id = %s"
# Answers to an operator's requests name the person, too, for the day that they are kept.
FORGET_ANSWERS = "DELETE FROM idempotency_key WHERE answer->>'user_id' = %s"
FORGET_TOKENS = "DELETE FROM api_token WHERE user_id = %s"


@dataclass(slots=True)
class Erased:
    """How much is gone."""

    accounts: int = 0
    rows: int = 0
    blobs: int = 0


def erase_account(backend: Backend, account: UUID, total: Erased | None = None) -> Erased:
    """Disconnect an account and delete all its data and its row.

    If it is interrupted, call it again to finish.

    The change feed tells that the account was erased, after the last of its content is gone.

    Raises:
      NotFound: There is no such account.
    """
    total = total or Erased()
    keys: set[str] = set()
    with backend.database.connection() as conn:
        gone = False
        while not gone:
            account_disconnect.disconnect(conn, account)
            keys.update(key for (key,) in conn.execute(BLOBS, (account,)))
            with suppress(WrongState):  # connected again in this very moment
                for count in account_disconnect.erase(conn, account):
                    total.rows += count
                gone = _delete_account(conn, account)
    total.accounts += 1
    total.blobs += _erase_blobs(backend, sorted(keys))
    return total


def _delete_account(conn: Conn, account: UUID) -> bool:
    """Whether it is gone; not if it was connected again while the rest of it was erased."""
    with conn.transaction():
        conn.execute(LOCK_ACCOUNT, (account,))
        gone = conn.execute(FORGET_ACCOUNT, (account,)).rowcount > 0
        if gone:
            conn.execute(TELL, (account,))
    return gone


def erase_user(backend: Backend, user_id: str) -> Erased:
    """Delete all data of a user: accounts, content, blobs, pending connections and tokens."""
    total = Erased()
    while True:
        with backend.database.connection() as conn:
            accounts = [account for (account,) in conn.execute(ACCOUNTS, (user_id,))]
            if not accounts:
                _delete_user(conn, user_id)
                return total
        for account in accounts:
            with suppress(NotFound):  # somebody else erases it, too
                erase_account(backend, account, total)


def _delete_user(conn: Conn, user_id: str) -> None:
    for statement in (FORGET_FLOWS, FORGET_ANSWERS, FORGET_TOKENS):
        conn.execute(statement, (user_id,))


def _erase_blobs(backend: Backend, keys: list[str]) -> int:
    """Delete the blobs that no other content names; return how many.

    The leader deletes those that were written a moment ago, within the hour.
    """
    if not keys:
        return 0
    gone = backend.blobs.collect(grace=SETTLED_SECONDS, most=len(keys), keys=keys)
    with backend.database.connection() as conn:
        conn.execute(HASTEN, {"keys": keys, "seconds": UNREFERENCED_SECONDS - SETTLED_SECONDS})
    return gone
