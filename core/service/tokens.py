"""Bearer tokens: create, list, revoke and authenticate.

A token is `polling_` and 32 random bytes. The database holds only its SHA-256 digest. The secret is
random, so a slower hash would not add protection.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import InvalidInput, NotFound, Refused, TooManyRequests
from core.ledger import audit
from core.results.text import is_storable
from core.scopes import DEFAULT, Scope, in_order
from core.service.authorization import Authorize, Principal, always
from core.service.pagination import Keyset, Page, PagedQuery
from core.states import Act, AuditTarget

PREFIX = "polling_"
SHAPE = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
"""A text of another shape is not a token. No query looks for it."""


MAX_TOKENS_PER_USER = 100
"""The number of valid tokens of a user, and of the tokens that a user creates on one day."""

CREATE = """
INSERT INTO api_token (id, name, user_id, digest, scopes, expires_at)
VALUES (
    %(id)s, %(name)s, %(user_id)s, %(digest)s, %(scopes)s,
    least(now() + %(days)s * interval '1 day', %(not_after)s::timestamptz)
)
RETURNING expires_at
"""
# The primary key serves it.
REVOKE = """
UPDATE api_token SET revoked_at = now()
WHERE id = %(id)s AND revoked_at IS NULL
  AND (%(user)s::text IS NULL OR user_id = %(user)s::text)
RETURNING user_id, name
"""
# The unique index on the digest serves it.
FIND_BY_DIGEST = """
SELECT id, user_id, scopes, last_used_at IS NULL OR last_used_at < now() - interval '1 minute'
FROM api_token
WHERE digest = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""
RECORD_USE = "UPDATE api_token SET last_used_at = now() WHERE id = %s"
# The index on the user of a token serves it.
COUNT_OF_USER = """
SELECT count(*) FILTER (WHERE created_at > now() - interval '1 day'),
       count(*) FILTER (WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()))
FROM api_token WHERE user_id = %s
"""
# The primary key serves both. The lock makes a revocation wait until the new token is stored.
LOCK_VALID = """
SELECT expires_at FROM api_token
WHERE id = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
FOR SHARE
"""
FIND_BY_ID = """
SELECT user_id, scopes FROM api_token
WHERE id = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""

tokens = PagedQuery(
    "id, name, user_id, scopes, created_at, expires_at, last_used_at, revoked_at",
    "api_token",
    Keyset({"created_at": "timestamptz", "id": "uuid"}),
    filters={"user_id": "text"},
)


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A new token. Its `secret` is shown once and not stored."""

    id: UUID
    secret: str
    scopes: tuple[Scope, ...]
    expires_at: datetime | None


def create(
    conn: Conn,
    *,
    user_id: str | None,
    name: str = "",
    days: float | None = None,
    scopes: Iterable[Scope] = DEFAULT,
    not_after: datetime | None = None,
) -> CreatedToken:
    """Create a token.

    Args:
      conn: A connection.
      user_id: The user whose rows the token can read and change. None: an operator's token, for
        all rows.
      name: A label for the list of tokens.
      days: Days until the token expires. Default: it never expires.
      scopes: The permissions of the token. Default: `DEFAULT` of `core.scopes`.
      not_after: The time at which the token expires at the latest.

    Raises:
      InvalidInput: The user id or the name is too long, blank, or cannot be stored; or there is no
        scope.
    """
    for field, text in (("user id", user_id), ("name", name)):
        if text is not None and (
            not is_storable(text) or len(text) > 500 or (field == "user id" and not text.strip())
        ):
            raise InvalidInput("text-invalid", field=field)
    granted = in_order(scopes)
    if not granted:
        raise InvalidInput("scope-not-chosen")
    secret, id = PREFIX + secrets.token_urlsafe(32), uuid4()
    params = {"id": id, "name": name, "user_id": user_id, "digest": digest_of(secret)}
    limits = {"scopes": list(granted), "days": days, "not_after": not_after}
    with conn.transaction():
        row = conn.execute(CREATE, params | limits).fetchone()
        assert row is not None
        audit.record(
            conn,
            Act.TOKEN_CREATE,
            AuditTarget.TOKEN,
            id,
            user_id=user_id,
            name=name,
            scopes=list(granted),
        )
    return CreatedToken(id, secret, granted, row[0])


def create_for(
    conn: Conn,
    principal: Principal,
    *,
    user_id: str | None,
    name: str = "",
    days: float | None = None,
    scopes: Iterable[Scope],
    authorize: Authorize = always,
) -> CreatedToken:
    """Create a token for a principal. It can do no more, and does not outlive the other token.

    Args:
      conn: A connection.
      principal: The owner of the other token, or a person. With a user's token, the new one is that
        user's.
      user_id: As for `create`.
      name: As for `create`.
      days: As for `create`.
      scopes: As for `create`.
      authorize: Raises if the session of the request has ended. Default: the request has none.

    Raises:
      Refused: The principal does not have one of the scopes, or belongs to another user.
      TooManyRequests: The principal is a user with too many tokens.
      NotFound: The other token has expired or was revoked since the request began.
    """
    granted = in_order(scopes)
    if not set(granted) <= set(principal.scopes):
        raise Refused("scope-not-yours", scopes=", ".join(granted))
    if user_id is not None and not principal.owns(user_id):
        raise Refused("token-for-another-user")
    owner = user_id if principal.is_admin else principal.user_id
    if not principal.is_admin:
        ((of_this_day, valid),) = conn.execute(COUNT_OF_USER, (owner,)).fetchall()
        if max(of_this_day, valid) >= MAX_TOKENS_PER_USER:
            raise TooManyRequests("tokens-exhausted", most=MAX_TOKENS_PER_USER)
    with conn.transaction():
        authorize(conn)
        not_after = None
        if principal.person is None:
            row = conn.execute(LOCK_VALID, (principal.token_id,)).fetchone()
            if row is None:
                raise NotFound("token-not-valid", token=principal.token_id)
            (not_after,) = row
        return create(
            conn, user_id=owner, name=name, days=days, scopes=granted, not_after=not_after
        )


def revoke(conn: Conn, id: UUID, *, user_id: str | None = None) -> None:
    """Revoke a token, effective immediately.

    Args:
      conn: A connection.
      id: The id of the token.
      user_id: The only user whose token may be revoked. Default: any token.

    Raises:
      NotFound: The token does not exist, belongs to another user, or is already revoked.
    """
    with conn.transaction():
        row = conn.execute(REVOKE, {"id": id, "user": user_id}).fetchone()
        if row is None:
            raise NotFound("token-not-valid", token=id)
        owner, name = row
        audit.record(conn, Act.TOKEN_REVOKE, AuditTarget.TOKEN, id, user_id=owner, name=name)


def authenticate(conn: Conn, secret: str) -> Principal | None:
    """Return the principal of a token; None if the token is unknown, expired or revoked."""
    if SHAPE.fullmatch(secret) is None:
        return None
    row = conn.execute(FIND_BY_DIGEST, (digest_of(secret),)).fetchone()
    if row is None:
        return None
    id, user_id, scopes, use_unrecorded = row
    if use_unrecorded:
        conn.execute(RECORD_USE, (id,))
    return Principal.of(id, user_id, scopes)


def current(conn: Conn, principal: Principal) -> Principal | None:
    """Return the principal of a token as it is now; None if it has expired or was revoked.

    A request that waits calls it before it continues.
    """
    if principal.token_id is None:
        return None
    row = conn.execute(FIND_BY_ID, (principal.token_id,)).fetchone()
    return None if row is None else Principal.of(principal.token_id, *row)


def hold(conn: Conn, principal: Principal) -> bool:
    """Return True if a token is valid, and keep it so until the end of the transaction."""
    return conn.execute(LOCK_VALID, (principal.token_id,)).fetchone() is not None


def digest_of(secret: str) -> bytes:
    """Return the digest by which the database knows a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def token_rows(conn: Conn) -> list[Row]:
    """List all tokens. Secrets are not stored."""
    return list(tokens.pages(conn))


def page(conn: Conn, principal: Principal, *, limit: int, after: str | None) -> Page:
    """List the tokens that a principal may revoke: all, or those of its user."""
    return tokens.page(conn, limit=limit, after=after, user_id=principal.user_id)


def find_token(conn: Conn, text: str) -> UUID:
    """Find the token whose id begins with `text`.

    Raises:
      NotFound: No token matches.
      InvalidInput: Several tokens match.
    """
    rows = fetch(
        conn,
        "SELECT id FROM api_token WHERE starts_with(id::text, %(text)s)",
        {"text": text.lower()},
    )
    if not text or not rows:
        raise NotFound("token-not-found", token=text)
    if len(rows) > 1:
        raise InvalidInput("token-ambiguous", text=text)
    id: UUID = rows[0]["id"]
    return id
