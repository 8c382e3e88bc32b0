"""The audit trail: acts, with their authors, objects and times.

A row is written in the transaction of its act. So each committed act has exactly one row. The table
is append-only; the leader deletes rows after their retention.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.db import clocks
from core.db.pool import Conn
from core.errors import TooManyRequests
from core.ledger.monotonic import OldEnough, any_age
from core.logs import request_id
from core.states import Act, AuditTarget, Channel

MAX_ACTS_PER_HOUR = 1_000
"""The acts of one user in an hour. Each is a row that stays for a year. Operators have no bound."""

NEVER_REFUSED = frozenset(
    {
        Act.TOKEN_REVOKE, Act.ACCOUNT_DISCONNECT, Act.ACCOUNT_ERASE_CONTENT, Act.ACCOUNT_ERASE,
        Act.USER_ERASE, Act.SUBSCRIPTION_REMOVE,
    }
)  # fmt: skip
"""Acts that take access or data away. Each needs an earlier act that gave it, so it has a bound.

A stolen token could use up the acts of an hour, and prevent its own revocation.
"""

RECORD = """
INSERT INTO audit (act, channel, actor, token_id, actor_user_id, address, request_id,
    target_type, target_id, user_id, detail)
VALUES (%(act)s, %(channel)s, %(actor)s, %(token_id)s, %(actor_user_id)s, %(address)s,
    %(request_id)s, %(target_type)s, %(target_id)s, %(user_id)s, %(detail)s)
"""
# The user of an account, for its row. The primary key serves it.
RECORD_OF_ACCOUNT = """
INSERT INTO audit (act, channel, actor, token_id, actor_user_id, address, request_id,
    target_type, target_id, user_id, detail)
SELECT %(act)s, %(channel)s, %(actor)s, %(token_id)s, %(actor_user_id)s, %(address)s,
    %(request_id)s, %(target_type)s, %(target_id)s, a.user_id,
    jsonb_build_object('integration_domain', a.integration_domain, 'name', left(a.name, 200))
        || %(detail)s::jsonb
FROM user_integration a WHERE a.id = %(account)s
"""
# The index that begins with the user serves it. Acts of operators on objects of the user do not
# count.
HAS_MOST_ACTS = """
SELECT at > now() - interval '1 hour' FROM audit
WHERE user_id = %(user)s AND actor_user_id = %(user)s
ORDER BY changed_xid DESC, id DESC OFFSET %(most)s - 1 LIMIT 1
"""
# The index on the time serves it.
PRUNE = """
DELETE FROM audit WHERE id IN (
    SELECT id FROM audit WHERE at < least(now() - %(seconds)s * interval '1 second', %(before)s)
    ORDER BY at LIMIT 5000)
"""


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of an act.

    Attributes:
      channel: The way by which the act came.
      name: The system's user of a command, or the person who signed in with the identity provider;
        None for others.
      token_id: The token of a request, or of its session.
      user_id: The user of the token; None for an operator.
      address: The address of the client.
    """

    channel: Channel
    name: str | None = None
    token_id: UUID | None = None
    user_id: str | None = None
    address: str | None = None


_actor: ContextVar[Actor | None] = ContextVar("actor", default=None)


def set_actor(actor: Actor) -> None:
    """Name the author of all acts that follow in this context."""
    _actor.set(actor)


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Name the author of the acts in the block."""
    before = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(before)


def current_actor() -> Actor:
    """Return the author of acts in this context. Outside of requests, it is a command's user."""
    return _actor.get() or Actor(Channel.COMMAND, name=_system_user())


def record(
    conn: Conn,
    act: Act,
    target: AuditTarget,
    id: object,
    *,
    user_id: str | None = None,
    **detail: Any,
) -> None:
    """Record an act in the transaction of the act.

    Args:
      conn: A connection in this transaction.
      act: The act.
      target: The kind of its object.
      id: The id of its object.
      user_id: The user whom the object belongs to; None for an object of operators.
      **detail: Further facts, without secrets.

    Raises:
      TooManyRequests: The author is a user with too many acts in this hour.
    """
    _require_room(conn, act)
    conn.execute(RECORD, _params(act, target, id, detail) | {"user_id": user_id})


def record_for_account(
    conn: Conn,
    act: Act,
    account: UUID,
    target: AuditTarget = AuditTarget.ACCOUNT,
    id: object = None,
    **detail: Any,
) -> None:
    """Record an act on an account or on an object of it, with the owner and the account's name."""
    _require_room(conn, act)
    of = account if id is None else id
    conn.execute(RECORD_OF_ACCOUNT, _params(act, target, of, detail) | {"account": account})


def _require_room(conn: Conn, act: Act) -> None:
    """Raise TooManyRequests if a user has filled the table in this hour."""
    user = current_actor().user_id
    if user is None or act in NEVER_REFUSED:
        return
    params = {"user": user, "most": MAX_ACTS_PER_HOUR}
    if conn.execute(HAS_MOST_ACTS, params).fetchone() == (True,):
        raise TooManyRequests("acts-exhausted", most=MAX_ACTS_PER_HOUR)


def _params(act: Act, target: AuditTarget, id: object, detail: Mapping[str, Any]) -> dict[str, Any]:
    actor = current_actor()
    return {
        "act": act,
        "channel": actor.channel,
        "actor": actor.name,
        "token_id": actor.token_id,
        "actor_user_id": actor.user_id,
        "address": actor.address,
        "request_id": request_id.get(),
        "target_type": target,
        "target_id": str(id),
        "detail": json.dumps({name: value for name, value in detail.items() if value is not None}),
    }


def prune(conn: Conn, retention_days: float, old_enough: OldEnough = any_age) -> bool:
    """Delete old rows, in a portion. Return True if none is left.

    Args:
      conn: A connection in autocommit mode.
      retention_days: The age of a row in days at which it is old.
      old_enough: Judges the age of rows. Default: by the database's clock alone.
    """
    seconds = retention_days * clocks.DAY
    if (before := old_enough(seconds)) is None:
        return True
    return conn.execute(PRUNE, {"seconds": seconds, "before": before}).rowcount < 5_000


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the system does not know the process's user
        return "unknown"
