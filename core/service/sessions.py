"""Sessions of the dashboard: open, find and end them.

A token opens a session and is not part of it; or a person opens it who signed in with the identity
provider (`core.service.sign_on`). A session has a random id, which only its browser knows. The
database holds the id's SHA-256 digest.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from typing import Any

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import NotFound
from core.ledger import audit
from core.scopes import role_named
from core.service import tokens
from core.service.authorization import Person, Principal
from core.states import Act, AuditTarget, Channel

HOURS = 12
"""The number of hours after which a session ends. The server enforces it."""

MAX_SESSIONS = 100
"""The maximum number of open sessions of one token or person. A further one ends the oldest."""

OPEN_SESSION = """
INSERT INTO session (digest, token_id, issuer, subject, name, role, expires_at)
VALUES (%(digest)s, %(token)s, %(issuer)s, %(subject)s, %(name)s, %(role)s,
    now() + %(hours)s * interval '1 hour')
"""
# The index on the token of a session serves it.
END_OLDEST = """
DELETE FROM session WHERE digest IN (
    SELECT digest FROM session WHERE token_id = %(token)s
    ORDER BY expires_at DESC OFFSET %(most)s
)
"""
# The index on the person of a session serves both.
END_OLDEST_OF_PERSON = """
DELETE FROM session WHERE digest IN (
    SELECT digest FROM session
    WHERE token_id IS NULL AND issuer = %(issuer)s AND subject = %(subject)s
    ORDER BY expires_at DESC OFFSET %(most)s
)
"""
END_SESSIONS_OF_PERSON = """
DELETE FROM session WHERE token_id IS NULL AND issuer = %(issuer)s AND subject = %(subject)s
"""
# Few people are signed in at a time: each session ends after `HOURS`.
PEOPLE = """
SELECT name, issuer, subject, max(role) AS role, count(*) AS sessions, max(expires_at) AS ends_at
FROM session WHERE token_id IS NULL AND expires_at > now()
GROUP BY name, issuer, subject ORDER BY name, issuer, subject LIMIT 10000
"""
END_SESSIONS_NAMED = "DELETE FROM session WHERE token_id IS NULL AND name = %s"
# The primary key serves it. The session of a person ends if another provider is set, or none. An
# end further ahead than a session may last counts as past: the clock
# of the database was set back.
FIND_SESSION = """
SELECT t.id, t.user_id, t.scopes, s.issuer, s.subject, s.name, s.role
FROM session s LEFT JOIN api_token t ON t.id = s.token_id
WHERE s.digest = %(digest)s
  AND s.expires_at > now() AND s.expires_at <= now() + %(hours)s * interval '1 hour'
  AND CASE WHEN s.token_id IS NULL THEN s.issuer = %(issuer)s
      ELSE t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now()) END
"""
HOLD_SESSION = """
SELECT FROM session WHERE digest = %(digest)s
  AND expires_at > now() AND expires_at <= now() + %(hours)s * interval '1 hour'
FOR SHARE
"""
END_SESSION = "DELETE FROM session WHERE digest = %s"
# The indexes on the token of a session and on the user of a token serve it.
END_SESSIONS = """
DELETE FROM session WHERE token_id IN (
    SELECT id FROM api_token WHERE id = %(token)s OR user_id = %(user)s
)
"""


@dataclass(frozen=True, slots=True)
class Session:
    """A session that is open.

    Attributes:
      principal: The owner of the token that opened it, or the person who did.
      digest: The digest by which the database knows it.
      csrf: The value that its forms carry. It is derived from the id, so another site can neither
        read nor choose it.
    """

    principal: Principal
    digest: bytes
    csrf: str


def open_session(conn: Conn, token: str) -> str | None:
    """Open a session with a token. If it has too many sessions, end the oldest.

    Returns:
      The id of the session, for its browser; None if the token is unknown, expired or revoked.
    """
    principal = tokens.authenticate(conn, token)
    if principal is None:
        return None
    return _open(conn, principal, AuditTarget.TOKEN, principal.token_id)


def open_session_of(conn: Conn, person: Person) -> str:
    """Open a session of a person, and return its id. If they have too many, end the oldest."""
    detail = {"issuer": person.issuer, "role": person.role}
    return _open(conn, Principal.of_person(person), AuditTarget.SESSION, person.subject, **detail)


def _open(
    conn: Conn, principal: Principal, target: AuditTarget, target_id: object, **detail: Any
) -> str:
    id, person = secrets.token_urlsafe(32), principal.person
    owner = {"token": principal.token_id, "most": MAX_SESSIONS} | {
        name: getattr(person, name, None) for name in ("issuer", "subject", "name", "role")
    }
    actor = replace(
        audit.current_actor(),
        channel=Channel.DASHBOARD,
        name=principal.name,
        token_id=principal.token_id,
        user_id=principal.user_id,
    )
    with audit.acting_as(actor), conn.transaction():
        conn.execute(OPEN_SESSION, owner | {"digest": digest_of(id), "hours": HOURS})
        conn.execute(END_OLDEST if person is None else END_OLDEST_OF_PERSON, owner)
        audit.record(conn, Act.SESSION_OPEN, target, target_id, user_id=principal.user_id, **detail)
    return id


def record_refusals(conn: Conn, number: int = 1, name: str | None = None, **detail: Any) -> None:
    """Record that sign-ins were refused.

    Args:
      conn: A connection.
      number: The number of sign-ins since the entry before. Default: 1.
      name: The name of the last person, as the identity provider named them. Default: unknown, as
        with a wrong token.
      **detail: Further facts about the last one, without secrets.
    """
    with audit.acting_as(replace(audit.current_actor(), name=name)):
        target = AuditTarget.SESSION
        audit.record(conn, Act.SESSION_REFUSE, target, "", attempts=number, **detail)


def find_session(conn: Conn, id: str, issuer: str | None = None) -> Session | None:
    """Return an open session; None if it has ended, or if its token has.

    Args:
      conn: A connection.
      id: The id of the session.
      issuer: The identity provider whose sessions are valid. Default: none.
    """
    digest = digest_of(id)
    params = {"digest": digest, "hours": HOURS, "issuer": issuer}
    row = conn.execute(FIND_SESSION, params).fetchone()
    if row is None:
        return None
    token_id, user_id, scopes, *person = row
    if token_id is not None:
        return Session(Principal.of(token_id, user_id, scopes), digest, csrf_of(id))
    of, subject, name, role = person
    principal = Principal.of_person(Person(of, subject, name, role_named(role)))
    return Session(principal, digest, csrf_of(id))


def hold(conn: Conn, session: Session) -> bool:
    """Return True if a session is open, and keep it so until the end of the transaction."""
    params = {"digest": session.digest, "hours": HOURS}
    # The token first: its deletion deletes its sessions.
    return (
        session.principal.person is not None or tokens.hold(conn, session.principal)
    ) and conn.execute(HOLD_SESSION, params).fetchone() is not None


def end_session(conn: Conn, id: str) -> None:
    """End a session, effective immediately."""
    conn.execute(END_SESSION, (digest_of(id),))


def end_sessions(conn: Conn, principal: Principal) -> int:
    """End all sessions of a user, a person, or an operator's token; return their number."""
    if (person := principal.person) is not None:
        of_person = {"issuer": person.issuer, "subject": person.subject}
        return conn.execute(END_SESSIONS_OF_PERSON, of_person).rowcount
    params = {"token": principal.token_id, "user": principal.user_id}
    return conn.execute(END_SESSIONS, params).rowcount


def people(conn: Conn) -> list[Row]:
    """Return the people with open sessions, with the number of these and the end of the last."""
    return fetch(conn, PEOPLE, {})


def end_sessions_named(conn: Conn, name: str) -> int:
    """End all sessions of the people with this name, and return their number.

    Raises:
      NotFound: Nobody with this name has a session.
    """
    with conn.transaction():
        ended = conn.execute(END_SESSIONS_NAMED, (name,)).rowcount
        if not ended:
            raise NotFound("session-not-found", person=name)
        audit.record(conn, Act.SESSION_END, AuditTarget.SESSION, name, sessions=ended)
    return ended


def digest_of(id: str) -> bytes:
    """Return the digest by which the database knows a session."""
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()


def csrf_of(id: str) -> str:
    """Return the value that the forms of a session carry."""
    return hmac.new(id.encode("utf-8", "surrogatepass"), b"csrf", hashlib.sha256).hexdigest()
