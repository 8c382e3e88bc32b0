"""The revision of an account: a digest of the properties that requests change.

Runs and pauses do not change it.

A client that changes an account can name the revision that it has read. So it does not undo the
change of somebody else.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from core.db.pool import Conn
from core.errors import WrongState
from core.service.authorization import Authorize
from core.service.errors import not_found

ANY = "*"
"""Matches every revision of an account that exists."""

# The version counts changes of config and credentials, but no refreshed tokens. The primary key
# serves both statements.
REVISION = """
SELECT left(encode(sha256(convert_to(jsonb_build_array(
    version, name, config, poll_interval_minutes, deletions)::text, 'UTF8')), 'hex'), 16)
FROM user_integration WHERE id = %s
"""
# The account keeps its revision until the end of the transaction. Savers may still refer to it.
LOCK_REVISION = f"{REVISION} FOR NO KEY UPDATE"


def revision(conn: Conn, account: UUID) -> str:
    """Return the revision of an account.

    Raises:
      NotFound: The account does not exist.
    """
    return _read(conn, REVISION, account)


def unchanged(account: UUID, known: Collection[str] | None, authorize: Authorize) -> Authorize:
    """Return a function that also raises WrongState if an account has another revision.

    Args:
      account: The id of the account.
      known: The revisions of which the account has to have one. None: any.
      authorize: The function to extend.
    """
    if known is None:
        return authorize

    def require(conn: Conn) -> None:
        authorize(conn)
        is_known = _read(conn, LOCK_REVISION, account) in known or ANY in known
        if not is_known:
            raise WrongState("account-changed-by-others")

    return require


def _read(conn: Conn, statement: str, account: UUID) -> str:
    row = conn.execute(statement.encode(), (account,)).fetchone()
    if row is None:
        raise not_found("account", account)
    return str(row[0])
