"""`Idempotency-Key`: perform a request once, and replay its response for repetitions.

A key belongs to its token. Request bodies may contain passwords, so the table stores only a keyed
digest of the request.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from core.db.clocks import age
from core.db.pool import Conn
from core.errors import InvalidInput, TooManyRequests, WrongState
from core.ledger.monotonic import old_enough
from core.service.authorization import Principal
from core.service.backend import Backend

RETENTION_SECONDS = age("idempotency_key.created_at")
"""The number of seconds for which a response is kept."""

ABANDONED_SECONDS = 300
"""The age in seconds at which an unanswered request is considered abandoned.

Its process has probably died, so its key may be used again. The age is judged up to ten minutes
late, by the monotonic clocks of the leaders too.
"""

MAX_KEYS_PER_USER = 5_000
"""The number of keys of one user that are kept at one time, for all tokens of the user."""

# The index on the user of a token and the primary key serve it.
HAS_ROOM = """
SELECT count(*) < %(most)s FROM (
    SELECT FROM api_token t JOIN idempotency_key k ON k.token_id = t.id
    WHERE t.user_id = %(user)s LIMIT %(most)s
) k
"""
# Exactly one of two concurrent requests gets a row. The primary key serves these statements.
RESERVE_KEY = """
INSERT INTO idempotency_key (token_id, key, request_digest)
VALUES (%(token)s, %(key)s, %(digest)s)
ON CONFLICT (token_id, key) DO NOTHING
RETURNING 1
"""
REUSE_KEY = """
UPDATE idempotency_key
SET request_digest = %(digest)s, created_at = now(), status = NULL, answer = NULL
WHERE token_id = %(token)s AND key = %(key)s
  AND (created_at < least(now() - %(kept)s * interval '1 second', %(kept_before)s)
    OR status IS NULL
    AND created_at < least(now() - %(abandoned)s * interval '1 second', %(abandoned_before)s))
RETURNING 1
"""
FIND_KEY = """
SELECT request_digest, status, answer FROM idempotency_key
WHERE token_id = %(token)s AND key = %(key)s
"""
RECORD_RESPONSE = """
UPDATE idempotency_key SET status = %(status)s, answer = %(answer)s
WHERE token_id = %(token)s AND key = %(key)s
"""
RELEASE_KEY = (
    "DELETE FROM idempotency_key WHERE token_id = %(token)s AND key = %(key)s AND status IS NULL"
)


@dataclass(frozen=True, slots=True)
class RecordedResponse:
    """A response; `replayed` is True if it belongs to an earlier request with this key."""

    status: int
    body: Any
    replayed: bool = False


def response(status: int, body: BaseModel) -> RecordedResponse:
    """Build the response of a route from a status and a body."""
    return RecordedResponse(status, body.model_dump(mode="json"))


def once(
    request: Request,
    backend: Backend,
    principal: Principal,
    key: str | None,
    body: bytes,
    act: Callable[[], RecordedResponse],
    location: Callable[[Any], str],
) -> JSONResponse:
    """Perform a request, or replay the response of an earlier request with this key.

    A failed request releases its key: it changed nothing, and the client may retry it.

    Args:
      request: The request.
      backend: The backend that holds the keys.
      principal: The owner of the token.
      key: The value of `Idempotency-Key`. None: perform the request unconditionally.
      body: The raw body of the request.
      act: A function that performs the request.
      location: A function that returns the path of the created object for a response body.

    Raises:
      WrongState: The first request with this key is still in progress.
      InvalidInput: The key was used for another request.
      TooManyRequests: The user has too many keys, and this one is new.
      Exception: Any error of `act`.
    """
    recorded = act() if key is None else _recorded(request, backend, principal, key, body, act)
    headers = {"Location": location(recorded.body)}
    if recorded.replayed:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse(recorded.body, recorded.status, headers=headers)


def _recorded(
    request: Request,
    backend: Backend,
    principal: Principal,
    key: str,
    body: bytes,
    act: Callable[[], RecordedResponse],
) -> RecordedResponse:
    content = b"\0".join(
        [request.method.encode(), request.url.path.encode(), request.url.query.encode(), body]
    )
    params: dict[str, Any] = {
        "token": principal.token_id,
        "key": key,
        "digest": backend.vault.digest(content),
    }
    with backend.database.connection() as conn:
        if not _has_room(conn, principal) and conn.execute(FIND_KEY, params).fetchone() is None:
            raise TooManyRequests("idempotency-keys-exhausted", most=MAX_KEYS_PER_USER)
        if not _reserve(conn, params):
            return _replayed(backend, conn.execute(FIND_KEY, params).fetchone(), content)
    try:
        recorded = act()
    except BaseException:
        with backend.database.connection() as conn:
            conn.execute(RELEASE_KEY, params)
        raise
    with backend.database.connection() as conn:
        conn.execute(
            RECORD_RESPONSE,
            params | {"status": recorded.status, "answer": json.dumps(recorded.body)},
        )
    return recorded


def _has_room(conn: Conn, principal: Principal) -> bool:
    """Return True if the principal may use a further key."""
    if principal.user_id is None:
        return True
    params = {"user": principal.user_id, "most": MAX_KEYS_PER_USER}
    return conn.execute(HAS_ROOM, params).fetchone() == (True,)


def _reserve(conn: Conn, params: dict[str, Any]) -> bool:
    """Reserve the key of a request. Return False if an earlier request has it.

    A key is used again if it is old by the clock of the database and by the monotonic clocks of the
    leaders. A step of the database's clock would otherwise let a request act twice.
    """
    if conn.execute(RESERVE_KEY, params).fetchone() is not None:
        return True
    ages = {"kept": RETENTION_SECONDS, "abandoned": ABANDONED_SECONDS}
    before = {
        f"{name}_before": old_enough(conn, seconds) or "-infinity" for name, seconds in ages.items()
    }
    return conn.execute(REUSE_KEY, params | ages | before).fetchone() is not None


def _replayed(backend: Backend, row: tuple[Any, ...] | None, content: bytes) -> RecordedResponse:
    if row is None:  # the first request failed and released the key between the two statements
        raise WrongState("idempotency-key-in-use")
    digest, status, body = row
    if not backend.vault.is_digest(bytes(digest), content):
        raise InvalidInput("idempotency-key-misused")
    if status is None:
        raise WrongState("idempotency-key-in-use")
    return RecordedResponse(status, body, replayed=True)
