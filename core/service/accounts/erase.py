"""Erase the data of an account or a user: rows, and blobs that no other row references."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from core.content.blobs import UNREFERENCED_SECONDS
from core.db.pool import Conn
from core.errors import NotFound, StoreUnavailable
from core.ledger import audit, erasure
from core.ledger.looks import wait_until_seen
from core.ledger.monotonic import old_enough
from core.service.accounts import disconnect as account_disconnect
from core.service.authorization import Authorize, always
from core.service.backend import Backend
from core.states import Act, AuditTarget

SETTLED_SECONDS = 3600.0
"""Seconds since the last write of an unreferenced blob after which it may be deleted.

A younger blob may belong to a result that is not saved yet. The time must also have passed on the
monotonic clocks of the leaders.
"""

ACCOUNTS_OF_USER = (
    "SELECT id FROM user_integration WHERE user_id = %s ORDER BY created_at, id LIMIT 100"
)
BLOBS_OF_ACCOUNT = """
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
TO_HIDE = """
SELECT id FROM user_integration WHERE user_id = %s AND NOT erases_user
ORDER BY created_at, id LIMIT 100
"""

HIDDEN = "SELECT count(*) FROM user_integration WHERE user_id = %s AND erases_user"


@dataclass(slots=True)
class Erased:
    """The number of erased accounts, rows and blobs, and of accounts that are only hidden."""

    hidden: int = 0
    accounts: int = 0
    rows: int = 0
    blobs: int = 0


def hide_account(
    backend: Backend,
    account: UUID,
    *,
    keeps_account: bool = False,
    authorize: Authorize = always,
) -> bool:
    """Disconnect an account, and hide its content. The leader deletes it after the delay.

    Until then, new credentials restore the account. No worker starts a task of it any more.

    Args:
      backend: The backend.
      account: The id of the account.
      keeps_account: True to keep the account's row, without its data.
      authorize: Raises in the transaction unless the request may still do it. Default: it may.

    Returns:
      False if the data are deleted already: an API of an earlier version may run, and would show
      them.

    Raises:
      NotFound: The account does not exist.
    """
    if not _hide(backend, account, keeps_account=keeps_account, now=False, authorize=authorize):
        return True
    _erase(backend, account, Erased())
    return False


def erase_account(
    backend: Backend,
    account: UUID,
    *,
    keeps_account: bool = False,
    authorize: Authorize = always,
) -> Erased:
    """Disconnect an account and delete all its data, and its row unless the account is kept.

    No worker starts a task of the account any more before its data are deleted, and its content is
    hidden. After an interruption, the leader deletes the rest. Once the last content is
    deleted, the change feed has an entry that the account was erased.

    Args:
      backend: The backend.
      account: The id of the account.
      keeps_account: True to keep the account's row, without its data.
      authorize: As for `hide_account`.

    Raises:
      NotFound: The account does not exist.
    """
    _hide(backend, account, keeps_account=keeps_account, now=True, authorize=authorize)
    return _erase(backend, account, Erased())


def _hide(
    backend: Backend, account: UUID, *, keeps_account: bool, now: bool, authorize: Authorize
) -> bool:
    """Hide the content; return True if the deletion has begun."""
    act = Act.ACCOUNT_ERASE_CONTENT if keeps_account else Act.ACCOUNT_ERASE
    with backend.database.connection() as conn:
        hidden = account_disconnect.hide(
            conn, account, act, erases_account=not keeps_account, now=now, authorize=authorize
        )
    wait_until_seen(backend.database)
    return hidden.has_begun


def _erase(backend: Backend, account: UUID, total: Erased) -> Erased:
    """Erase an account whose deletion has begun. The leader may do it at the same time."""
    with backend.database.connection() as conn:
        keys = sorted({key for (key,) in conn.execute(BLOBS_OF_ACCOUNT, (account,))})
        while True:
            for count in erasure.erase(conn, account):
                total.rows += count
            if erasure.finish(conn, account):
                break
    total.accounts += 1
    total.blobs += _erase_blobs(backend, keys)
    return total


def hide_user(backend: Backend, user_id: str) -> Erased:
    """Disconnect all accounts of a user, and hide their content. The leader deletes them later.

    It deletes the user's other data with the last account. New credentials restore an account until
    then, and the user with it. A user without accounts is erased immediately.
    """
    total, is_recorded = Erased(), False
    while True:
        with backend.database.connection() as conn:
            accounts = [account for (account,) in conn.execute(TO_HIDE, (user_id,))]
            begun, is_recorded = _hide_accounts(
                conn, user_id, accounts, now=False, is_recorded=is_recorded
            )
        if not accounts:
            break
        wait_until_seen(backend.database)
        for account in begun:
            _erase(backend, account, total)
    with backend.database.connection() as conn:
        ((total.hidden,),) = conn.execute(HIDDEN, (user_id,))
        if not total.hidden:
            _delete_user(conn, user_id, record=not is_recorded)
    return total


def erase_user(backend: Backend, user_id: str) -> Erased:
    """Delete all data of a user: accounts, content, blobs, pending connections and tokens.

    The quotas of the user stay, because an operator has set them.
    """
    total, is_recorded, had_accounts = Erased(), False, False
    while True:
        with backend.database.connection() as conn:
            accounts = [account for (account,) in conn.execute(ACCOUNTS_OF_USER, (user_id,))]
            if not accounts:
                if _delete_user(conn, user_id, record=not had_accounts):
                    return total
                continue
            had_accounts = True
            _, is_recorded = _hide_accounts(
                conn, user_id, accounts, now=True, is_recorded=is_recorded
            )
        wait_until_seen(backend.database)
        for account in accounts:
            _erase(backend, account, total)


def _hide_accounts(
    conn: Conn, user_id: str, accounts: Sequence[UUID], *, now: bool, is_recorded: bool
) -> tuple[list[UUID], bool]:
    """Hide accounts of a user.

    Returns:
      The accounts whose deletion has begun, and True if the trail has the act.
    """
    begun = []
    for account in accounts:
        with suppress(NotFound):  # another process erased it
            hidden = account_disconnect.hide(
                conn,
                account,
                None if is_recorded else Act.USER_ERASE,
                erases_account=True,
                now=now,
                user=user_id,
            )
            is_recorded = is_recorded or hidden.is_new
            if hidden.has_begun:
                begun.append(account)
    return begun, is_recorded


def _delete_user(conn: Conn, user_id: str, *, record: bool) -> bool:
    """Delete all other rows of a user; return False if there is an account."""
    with conn.transaction():
        conn.execute(erasure.LOCK_TOKENS, (user_id,))
        if not erasure.delete_user(conn, user_id):
            return False
        if record:
            audit.record(conn, Act.USER_ERASE, AuditTarget.USER, user_id, user_id=user_id)
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
