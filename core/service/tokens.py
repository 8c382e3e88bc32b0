"""Who may do what: bearer tokens, and whose rows a token sees.

A token is `polling_` and 32 random bytes. Only its SHA-256 is kept: it is random, so nothing slower
is needed to hide it.
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
from core.service.missing import not_found
from core.service.pagination import Keyset, PagedQuery

PREFIX = "polling_"

CREATE = """
INSERT INTO api_token (id, name, user_id, digest, expires_at)
VALUES (%(id)s, %(name)s, %(user_id)s, %(digest)s, now() + %(days)s * interval '1 day')
RETURNING expires_at
"""
REVOKE = "UPDATE api_token SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL"
# Served by the unique index on the digest.
FIND = """
SELECT id, user_id, last_used_at IS NULL OR last_used_at < now() - interval '1 minute'
FROM api_token
WHERE digest = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""
USED = "UPDATE api_token SET last_used_at = now() WHERE id = %s"

OWNERS = {
    "account": "SELECT user_id FROM user_integration WHERE id = %s",
    "run": """
        SELECT a.user_id FROM sync_run r JOIN user_integration a ON a.id = r.user_integration_id
        WHERE r.id = %s
    """,
    "task": """
        SELECT a.user_id FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id
        WHERE t.id = %s
    """,
    "content": """
        SELECT a.user_id FROM user_integration_content c
        JOIN user_integration a ON a.id = c.user_integration_id
        WHERE c.id = %s
    """,
}

tokens = PagedQuery(
    "id, name, user_id, created_at, expires_at, last_used_at, revoked_at",
    "api_token",
    Keyset({"created_at": "timestamptz", "id": "uuid"}),
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a user, or, without one, an operator who may see everything."""

    token_id: UUID
    user_id: str | None

    @property
    def is_admin(self) -> bool:
        """Whether it is an operator."""
        return self.user_id is None

    def owns(self, user_id: str) -> bool:
        """Whether it may see what is this user's."""
        return self.user_id is None or self.user_id == user_id


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A new token; `secret` is shown once and kept nowhere."""

    id: UUID
    secret: str
    expires_at: datetime | None


def create(
    conn: Conn, *, user_id: str | None, name: str = "", days: float | None = None
) -> CreatedToken:
    """A new token.

    Parameters:
      user_id: Whose rows it sees. None: an operator's, which sees all.
      name: For people who list tokens.
      days: Until it expires. Default: never.

    Raises:
      InvalidInput: The user id or the name cannot be one.
    """
    for what, text in (("user id", user_id), ("name", name)):
        if text is not None and (
            not is_storable(text) or len(text) > 500 or (what == "user id" and not text.strip())
        ):
            raise InvalidInput("text-invalid", field=what)
    secret, id = PREFIX + secrets.token_urlsafe(32), uuid4()
    names = {"id": id, "name": name, "user_id": user_id, "digest": _digest(secret), "days": days}
    row = conn.execute(CREATE, names).fetchone()
    assert row is not None
    return CreatedToken(id, secret, row[0])


def revoke(conn: Conn, id: UUID) -> None:
    """End a token now.

    Raises:
      NotFound: There is none of this id, or it is revoked already.
    """
    if conn.execute(REVOKE, (id,)).rowcount == 0:
        raise NotFound("token-not-valid", token=id)


def authenticate(conn: Conn, secret: str) -> Principal | None:
    """Whose token this is; None if it is none, expired or revoked."""
    found = conn.execute(FIND, (_digest(secret),)).fetchone()
    if found is None:
        return None
    id, user_id, note = found
    if note:
        conn.execute(USED, (id,))
    return Principal(id, user_id)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def require(conn: Conn, principal: Principal, what: str, id: UUID | int) -> None:
    """Raise NotFound unless the account, run, task or content exists and the principal may see it.

    What is another user's is answered as if it were not there.
    """
    owner = conn.execute(OWNERS[what].encode(), (id,)).fetchone()
    if owner is None or not principal.owns(owner[0]):
        raise not_found(what, id)


def token_rows(conn: Conn) -> list[Row]:
    """All tokens, without their secrets, which nobody has."""
    return list(tokens.pages(conn))


def find_token(conn: Conn, text: str) -> UUID:
    """The token whose id begins with this.

    Raises:
      NotFound, InvalidInput: There is none, or there are several.
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
