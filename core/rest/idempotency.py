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

from core.errors import InvalidInput, WrongState
from core.service.authorization import Principal
from core.service.backend import Backend

RETENTION_HOURS = 24
"""The number of hours that a response is kept."""

ABANDONED_SECONDS = 300
"""The age in seconds at which an unanswered request is considered abandoned.

Its process has probably died, so its key may be used again.
"""

# One statement: of two concurrent requests, exactly one gets a row.
RESERVE_KEY = """
INSERT INTO idempotency_key AS k (token_id, key, request_digest)
VALUES (%(token)s, %(key)s, %(digest)s)
ON CONFLICT (token_id, key) DO UPDATE
SET request_digest = excluded.request_digest, created_at = now(), status = NULL, answer = NULL
WHERE k.created_at < now() - %(kept)s * interval '1 hour'
   OR k.status IS NULL AND k.created_at < now() - %(abandoned)s * interval '1 second'
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
        reserved = conn.execute(
            RESERVE_KEY, params | {"kept": RETENTION_HOURS, "abandoned": ABANDONED_SECONDS}
        ).fetchone()
        if reserved is None:
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


def _replayed(backend: Backend, row: tuple[Any, ...] | None, content: bytes) -> RecordedResponse:
    if row is None:  # the first request failed and released the key between the two statements
        raise WrongState("idempotency-key-in-use")
    digest, status, body = row
    if not backend.vault.is_digest(bytes(digest), content):
        raise InvalidInput("idempotency-key-misused")
    if status is None:
        raise WrongState("idempotency-key-in-use")
    return RecordedResponse(status, body, replayed=True)
