"""`Idempotency-Key`: a request that is sent again is answered as the first time, and done once.

A key belongs to its token. Bodies hold passwords, so what is kept of a request is a keyed digest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.errors import InvalidInput, WrongState
from core.service.backend import Backend

RETENTION_HOURS = 24
ABANDONED_SECONDS = 300
"""A request that was not answered by then has died with its process: its key may be used again."""

# One statement, so that of two requests at once one begins and the other is told.
BEGIN = """
INSERT INTO idempotency_key AS k (token_id, key, request_digest)
VALUES (%(token)s, %(key)s, %(digest)s)
ON CONFLICT (token_id, key) DO UPDATE
SET request_digest = excluded.request_digest, created_at = now(), status = NULL, answer = NULL
WHERE k.created_at < now() - %(kept)s * interval '1 hour'
   OR k.status IS NULL AND k.created_at < now() - %(abandoned)s * interval '1 second'
RETURNING 1
"""
FOUND = """
SELECT request_digest, status, answer FROM idempotency_key
WHERE token_id = %(token)s AND key = %(key)s
"""
KEEP = """
UPDATE idempotency_key SET status = %(status)s, answer = %(answer)s
WHERE token_id = %(token)s AND key = %(key)s
"""
FORGET = (
    "DELETE FROM idempotency_key WHERE token_id = %(token)s AND key = %(key)s AND status IS NULL"
)


@dataclass(frozen=True, slots=True)
class RecordedResponse:
    """What a request came to; `replayed` if that was an earlier one."""

    status: int
    body: Any
    replayed: bool = False


def once(
    backend: Backend, token: UUID, key: str, request: bytes, act: Callable[[], RecordedResponse]
) -> RecordedResponse:
    """Do what is asked, unless a request with this key has done it.

    A request that fails is forgotten: it changed nothing, and may be sent again with the same key.

    Parameters:
      request: All that makes the request what it is: method, path and body.

    Raises:
      WrongState: The first request with this key is still in progress.
      InvalidInput: The key was used for another request.
      Whatever `act` raises.
    """
    names: dict[str, Any] = {"token": token, "key": key, "digest": backend.vault.digest(request)}
    with backend.database.connection() as conn:
        begun = conn.execute(
            BEGIN, names | {"kept": RETENTION_HOURS, "abandoned": ABANDONED_SECONDS}
        ).fetchone()
        if begun is None:
            return _recorded(backend, conn.execute(FOUND, names).fetchone(), request)
    try:
        answer = act()
    except BaseException:
        with backend.database.connection() as conn:
            conn.execute(FORGET, names)
        raise
    with backend.database.connection() as conn:
        conn.execute(KEEP, names | {"status": answer.status, "answer": json.dumps(answer.body)})
    return answer


def _recorded(backend: Backend, found: tuple[Any, ...] | None, request: bytes) -> RecordedResponse:
    if found is None:  # it failed and was forgotten in this very moment
        raise WrongState("idempotency-key-in-use")
    digest, status, body = found
    if not backend.vault.is_digest(bytes(digest), request):
        raise InvalidInput("idempotency-key-misused")
    if status is None:
        raise WrongState("idempotency-key-in-use")
    return RecordedResponse(status, body, replayed=True)
