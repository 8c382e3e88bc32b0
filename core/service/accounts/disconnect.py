"""Disconnect an account: delete its credentials, and keep or hide its content."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from core.accounts import store
from core.content.visible import visible
from core.db.pool import Conn
from core.db.row_factory import dataclass_row
from core.errors import NotFound, WrongState
from core.ledger import audit, endings
from core.ledger.looks import wait_until_seen
from core.service.authorization import Authorize, always
from core.service.backend import Backend
from core.states import AccountState, Act, AuditTarget

COUNT_CONTENT = f"""
SELECT count(*) FROM user_integration_content
WHERE user_integration_id = %(id)s AND {visible("%(id)s::uuid")}
"""


def disconnect_account(
    backend: Backend, account: UUID, *, authorize: Authorize = always, wait: bool = True
) -> None:
    """Disconnect an account, and wait until no worker starts a task of it any more.

    The workers ask running tasks to return early.

    Args:
      backend: The backend.
      account: The id of the account.
      authorize: Raises in the transaction unless the request may still do it. Default: it may.
      wait: False if the caller disconnects several accounts, and waits once after all of them.

    Raises:
      NotFound: The account does not exist.
      WrongState: The content is hidden, and will be deleted.
    """
    with backend.database.connection() as conn:
        disconnect(conn, account, Act.ACCOUNT_DISCONNECT, authorize=authorize)
    if wait:
        wait_until_seen(backend.database)


def disconnect(
    conn: Conn, account: UUID, act: Act | None = None, *, authorize: Authorize = always
) -> None:
    """Delete an account's credentials and cancel its runs. Its content stays.

    Items of the kind `members` are deleted, because they would no longer be true. The results of
    tasks that still run are discarded. Workers notice the change at their next look.

    Args:
      conn: A connection in autocommit mode. In one transaction, the account would stay locked while
        runs are cancelled. Savers lock tasks before accounts, so both would wait for each other.
      account: The id of the account.
      act: The act for the audit trail. Default: a part of another act. A second disconnect is none.
      authorize: As for `disconnect_account`.

    Raises:
      NotFound: The account does not exist.
      WrongState: The content is hidden, and will be deleted.
    """
    with conn.transaction():
        authorize(conn)
        row = conn.execute(store.DISCONNECT, (account,)).fetchone()
        if row is None:
            store.load(conn, account)
            raise WrongState("account-erasing", account=account)
        is_repeated = act == Act.ACCOUNT_DISCONNECT and row[0] == AccountState.DISCONNECTED
        if act is not None and not is_repeated:
            audit.record_for_account(conn, act, account)
    endings.stop(conn, account)


@dataclass(frozen=True, slots=True)
class Hidden:
    """An account whose content is hidden.

    Attributes:
      has_begun: True if the deletion has begun: the caller deletes the data. It does not wait if an
        API of an earlier version may run, because that would show the content.
      is_new: False if an earlier request was the same.
    """

    has_begun: bool
    is_new: bool


def hide(
    conn: Conn,
    account: UUID,
    act: Act | None = None,
    *,
    erases_account: bool,
    now: bool,
    user: str | None = None,
    authorize: Authorize = always,
) -> Hidden:
    """Delete an account's credentials, cancel its runs, and hide its content from all readers.

    The leader deletes the content after the delay. Until then, new credentials restore the account.

    Args:
      conn: A connection in autocommit mode, as for `disconnect`.
      account: The id of the account.
      act: The act for the audit trail. A repeated one is none. Default: a part of another act.
      erases_account: True to delete the account, too, and not only its content.
      now: True to begin the deletion now. Nothing can restore the account then.
      user: The user who is erased, and on whom it is an act. Default: it is an act on the account.
      authorize: As for `disconnect_account`.

    Raises:
      NotFound: The account does not exist.
    """
    params = {"id": account, "erases_account": erases_account, "now": now}
    params["erases_user"] = user is not None
    with conn.transaction():
        authorize(conn)
        cursor = conn.cursor(row_factory=dataclass_row(Hidden))
        hidden = cursor.execute(store.HIDE, params).fetchone()
        if hidden is None:
            raise NotFound("account-not-found", account=account)
        if act is not None and hidden.is_new:
            if user is None:
                audit.record_for_account(conn, act, account)
            else:
                audit.record(conn, act, AuditTarget.USER, user, user_id=user)
    endings.stop(conn, account)
    return hidden


def count_content(conn: Conn, account: UUID) -> int:
    """Count the visible items of an account, deleted ones included."""
    row = conn.execute(COUNT_CONTENT, {"id": account}).fetchone()
    return row[0] if row else 0
