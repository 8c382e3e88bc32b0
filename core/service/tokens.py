"""Bearer tokens: create, list, revoke and authenticate.

A token is `polling_` and 32 random bytes. The database holds only its SHA-256 digest. The secret is
random, so a slower hash would not add protection.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import InvalidInput, NotFound
from core.results.text import is_storable
from core.service.authorization import Principal
from core.service.pagination import Keyset, PagedQuery

PREFIX = "polling_"

CREATE = """
INSERT INTO api_token (id, name, user_id, digest, expires_at)
VALUES (%(id)s, %(name)s, %(user_id)s, %(digest)s, now() + %(days)s * interval '1 day')
RETURNING expires_at
"""
REVOKE = "UPDATE api_token SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL"
# The unique index on the digest serves it.
FIND_BY_DIGEST = """
SELECT id, user_id, last_used_at IS NULL OR last_used_at < now() - interval '1 minute'
FROM api_token
WHERE digest = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""
RECORD_USE = "UPDATE api_token SET last_used_at = now() WHERE id = %s"

tokens = PagedQuery(
    "id, name, user_id, created_at, expires_at, last_used_at, revoked_at",
    "api_token",
    Keyset({"created_at": "timestamptz", "id": "uuid"}),
)


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A new token. Its `secret` is shown once and not stored."""

    id: UUID
    secret: str
    expires_at: datetime | None


def create(
    conn: Conn, *, user_id: str | None, name: str = "", days: float | None = None
) -> CreatedToken:
    """Create a token.

    Parameters:
      user_id: The user whose rows the token can read and change. None: an operator's token, for
        all rows.
      name: A label for the list of tokens.
      days: Days until the token expires. Default: it never expires.

    Raises:
      InvalidInput: The user id or the name is too long, blank, or cannot be stored.
    """
    for field, text in (("user id", user_id), ("name", name)):
        if text is not None and (
            not is_storable(text) or len(text) > 500 or (field == "user id" and not text.strip())
        ):
            raise InvalidInput("text-invalid", field=field)
    secret, id = PREFIX + secrets.token_urlsafe(32), uuid4()
    params = {"id": id, "name": name, "user_id": user_id, "digest": _digest(secret), "days": days}
    row = conn.execute(CREATE, params).fetchone()
    assert row is not None
    return CreatedToken(id, secret, row[0])


def revoke(conn: Conn, id: UUID) -> None:
    """Revoke a token, effective immediately.

    Raises:
      NotFound: The token does not exist, or is already revoked.
    """
    if conn.execute(REVOKE, (id,)).rowcount == 0:
        raise NotFound("token-not-valid", token=id)


def authenticate(conn: Conn, secret: str) -> Principal | None:
    """Return the principal of a token; None if the token is unknown, expired or revoked."""
    row = conn.execute(FIND_BY_DIGEST, (_digest(secret),)).fetchone()
    if row is None:
        return None
    id, user_id, use_unrecorded = row
    if use_unrecorded:
        conn.execute(RECORD_USE, (id,))
    return Principal(id, user_id)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def token_rows(conn: Conn) -> list[Row]:
    """List all tokens. Secrets are not stored."""
    return list(tokens.pages(conn))


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
