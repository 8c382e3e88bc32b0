"""`Idempotency-Key`: perform a write once, and replay its response for repetitions.

A key belongs to its token. Request bodies may contain passwords, so the table stores only a keyed
digest of the request. A response that contains a secret is stored encrypted.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Annotated, Any
from uuid import UUID

import psycopg
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from psycopg_pool import PoolTimeout
from pydantic import StringConstraints, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.db.clocks import age
from core.db.pool import Conn
from core.errors import InvalidInput, PollingError, TooManyRequests, VaultError, WrongState
from core.ledger.erasure import ERASED
from core.ledger.monotonic import old_enough
from core.rest.contract import WRITES, Contract
from core.service.authorization import Principal
from core.service.backend import Backend
from core.service.errors import not_found
from core.states import AccountState
from core.web import problems
from core.web.dependencies import authenticated, bearer

HEADER = "Idempotency-Key"

RETENTION_SECONDS = age("idempotency_key.created_at")
"""The number of seconds for which a response is kept."""

ABANDONED_SECONDS = 300
"""The age in seconds at which an unanswered request is considered abandoned.

Its process has probably died, so its key may be used again. The age is judged up to ten minutes
late, by the monotonic clocks of the leaders too.
"""

MAX_KEYS_PER_USER = 5_000
"""The number of keys of one user that are kept at one time, for all tokens of the user."""

Key = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]
KEYS = TypeAdapter(Key)

PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "schema": KEYS.json_schema(),
    "description": (
        "A unique key for this request. If a request with the same key is sent again within 24"
        " hours, the first response is returned and nothing is done twice"
    ),
}
"""The header in the OpenAPI document."""

WITHOUT = ("/v1/hints/",)
"""Paths without keys: their requests have no token."""

SECRET_ANSWERS = ("/v1/tokens", "/v1/subscriptions", "/authorize", "/check")
"""The ends of paths whose responses contain a secret, or a sample of content that is not stored."""

_NAMED = re.compile(r"/v1/user-integrations/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:/|$)")
"""The paths about one account."""

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
SET request_digest = %(digest)s, created_at = now(), status = NULL, answer = NULL, location = NULL
WHERE token_id = %(token)s AND key = %(key)s
  AND (created_at < least(now() - %(kept)s * interval '1 second', %(kept_before)s)
    OR status IS NULL
    AND created_at < least(now() - %(abandoned)s * interval '1 second', %(abandoned_before)s))
RETURNING 1
"""
FIND_KEY = """
SELECT request_digest, status, answer, location FROM idempotency_key
WHERE token_id = %(token)s AND key = %(key)s
"""
# The primary key serves it.
ACCOUNT_STATE = "SELECT sync_status FROM user_integration WHERE id = %s"
RECORD_RESPONSE = """
UPDATE idempotency_key SET status = %(status)s, answer = %(answer)s, location = %(location)s
WHERE token_id = %(token)s AND key = %(key)s
"""
RELEASE_KEY = (
    "DELETE FROM idempotency_key WHERE token_id = %(token)s AND key = %(key)s AND status IS NULL"
)


class Idempotency:
    """Middleware that performs a write with a key once.

    A failed request releases its key: it changed nothing, and the client may send it again.

    Args:
      app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Perform a request, or replay the response of an earlier request with this key."""
        key = _key(scope)
        if key is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        backend: Backend = scope["app"].state.backend
        contract: Contract = scope["app"].state.contract
        if scope["method"] not in contract.methods(request):
            await self.app(scope, receive, send)  # no route takes the request
            return
        try:
            principal = await authenticated(request, backend, await bearer(request))
            content = _content(request, await request.body())
            reserved = await run_in_threadpool(
                _reserve, backend, principal, _valid(key), scope["path"], content
            )
        except Exception as error:  # noqa: BLE001  each has its response, or is raised again
            await _refusal(request, error)(scope, receive, send)
            return
        if isinstance(reserved, Response):
            await reserved(scope, receive, send)
            return
        answer = _Answer()
        try:
            await self.app(scope, _replaying(await request.body(), receive), answer.note)
        finally:
            await run_in_threadpool(_end, backend, reserved, scope["path"], answer)
        for message in answer.messages:
            await send(message)


@dataclass(slots=True)
class _Answer:
    """The response of the application, until it is recorded."""

    messages: list[Message] = field(default_factory=list)

    async def note(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def is_success(self) -> bool:
        """True if the response is complete and reports a success."""
        return (
            bool(self.messages)
            and self.messages[0]["status"] < 300
            and not self.messages[-1].get("more_body", False)
        )

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


def _key(scope: Scope) -> str | None:
    """Return the key of a write; None for a request without one."""
    if scope["type"] != "http" or scope["method"].lower() not in WRITES:
        return None
    return None if scope["path"].startswith(WITHOUT) else Headers(scope=scope).get(HEADER)


def _valid(key: str) -> str:
    try:
        return KEYS.validate_python(key)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        raise RequestValidationError(
            [{**detail, "loc": ("header", HEADER)} for detail in details]
        ) from None


def _content(request: Request, body: bytes) -> bytes:
    return b"\0".join(
        [request.method.encode(), request.url.path.encode(), request.url.query.encode(), body]
    )


def _refusal(request: Request, error: Exception) -> Response:
    """Return the response for an error before the request was performed."""
    match error:
        case PollingError():
            return problems.problem(error)
        case RequestValidationError():
            return problems.invalid(error)
        case HTTPException():
            return problems.problem(problems.http_error(error.status_code))
        case PoolTimeout():
            return problems.problem(problems.HttpProblem("database-busy"))
        case psycopg.Error():
            return problems.problem(problems.database_error(request, error))
    raise error


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Return a function that receives the body again, which was read already."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


def _reserve(
    backend: Backend, principal: Principal, key: str, path: str, content: bytes
) -> dict[str, Any] | Response:
    """Reserve a key; return its parameters, or the response of the earlier request.

    Raises:
      NotFound: The response is about data that are hidden or erased in the meantime.
      WrongState: The first request with this key is still in progress.
      InvalidInput: The key was used for another request.
      TooManyRequests: The user has too many keys, and this one is new.
    """
    params: dict[str, Any] = {
        "token": principal.token_id,
        "key": key,
        "digest": backend.vault.digest(content),
    }
    with backend.database.connection() as conn:
        if not _has_room(conn, principal) and conn.execute(FIND_KEY, params).fetchone() is None:
            raise TooManyRequests("idempotency-keys-exhausted", most=MAX_KEYS_PER_USER)
        if _take(conn, params):
            return params
        response = _replayed(backend, conn.execute(FIND_KEY, params).fetchone(), content)
        _require_shown(conn, path, response.body)
        return response


def _end(backend: Backend, params: dict[str, Any], path: str, answer: _Answer) -> None:
    """Record the response of a request, or release its key."""
    with backend.database.connection() as conn:
        if not answer.is_success:
            conn.execute(RELEASE_KEY, params)
            return
        start, text = answer.messages[0], answer.body.decode()
        if path.endswith(SECRET_ANSWERS):
            text = json.dumps({"sealed": backend.vault.seal_text(text)})
        recorded = {
            "status": start["status"],
            "answer": text or None,
            "location": dict(start["headers"]).get(b"location", b"").decode() or None,
        }
        conn.execute(RECORD_RESPONSE, params | recorded)


def _has_room(conn: Conn, principal: Principal) -> bool:
    """Return True if the principal may use a further key."""
    if principal.user_id is None:
        return True
    params = {"user": principal.user_id, "most": MAX_KEYS_PER_USER}
    return conn.execute(HAS_ROOM, params).fetchone() == (True,)


def _take(conn: Conn, params: dict[str, Any]) -> bool:
    """Take the key of a request. Return False if an earlier request has it.

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


def _require_shown(conn: Conn, path: str, body: bytes | memoryview) -> None:
    """Check that a recorded response may still be shown.

    Raises:
      NotFound: It is about an account that is erased, or about hidden data of an account.
    """
    account, is_account = _account_of(path, json.loads(bytes(body) or b"null"))
    if account is None:
        return
    row = conn.execute(ACCOUNT_STATE, (account,)).fetchone()
    if row is None or (not is_account and row[0] == AccountState.ERASING):
        raise not_found("account", account)


def _account_of(path: str, body: Any) -> tuple[UUID | None, bool]:
    """Return the account of a recorded response, and True if it shows only the account itself."""
    if not isinstance(body, dict):
        return None, False
    if ERASED in body:  # the engine has deleted the account's data
        raise not_found("account", UUID(body[ERASED]))
    if (account := body.get("user_integration_id")) is not None:
        return UUID(account), False
    if path == "/v1/oauth/redeem" or path.startswith("/v1/user-integrations"):
        named = _NAMED.match(path)
        account = body.get("id") if named is None else named[1]
        return (UUID(account), "run_id" not in body) if account is not None else (None, False)
    return None, False


def _replayed(backend: Backend, row: tuple[Any, ...] | None, content: bytes) -> Response:
    if row is None:  # the first request failed and released the key between the two statements
        raise WrongState("idempotency-key-in-use")
    digest, status, body, location = row
    if not backend.vault.is_digest(bytes(digest), content):
        raise InvalidInput("idempotency-key-misused")
    if status is None:
        raise WrongState("idempotency-key-in-use")
    headers = {"Idempotency-Replayed": "true"} | ({"Location": location} if location else {})
    if body is None:
        return Response(status_code=status, headers=headers)
    if isinstance(body, dict) and set(body) == {"sealed"}:
        try:
            body = json.loads(backend.vault.open_text(body["sealed"]))
        except VaultError:  # its key is gone: the secret cannot be shown again
            raise InvalidInput("idempotency-key-misused") from None
    return JSONResponse(body, status, headers=headers)
