"""Errors as problem details (https://www.rfc-editor.org/rfc/rfc9457).

No secret that was sent is repeated in them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg_pool import PoolTimeout
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.api.changes import CursorOutdated
from core.api.idempotency import KeyInUse, KeyMisused
from core.db.pool import first_line, passes
from core.errors import InvalidInput, NotFound, PollingError, ServerUnavailable, WrongState

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:integration-polling:problem:"

# The first that fits; status and name.
KINDS: Sequence[tuple[type[PollingError], int, str]] = (
    (NotFound, 404, "not-found"),
    (KeyInUse, 409, "idempotency-key-in-use"),
    (KeyMisused, 422, "idempotency-key-misused"),
    (CursorOutdated, 410, "cursor-outdated"),
    (WrongState, 409, "wrong-state"),
    (InvalidInput, 422, "invalid-input"),
    (ServerUnavailable, 503, "unavailable"),
    (PollingError, 502, "provider-unavailable"),
)
LONGEST_PLACE = 200
MOST_ERRORS = 20

log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """What is wrong with one part of a request."""

    where: str = Field(description="`query.limit`, `body.name`, …")
    message: str


class Problem(BaseModel):
    """What went wrong, and what can be done about it."""

    type: str = Field(
        description=f"`{TYPE}` and the kind of problem; stays the same whatever the text says"
    )
    title: str
    status: int
    detail: str | None = None
    hint: str | None = Field(None, description="What to do next")
    errors: list[FieldError] | None = None


class Refused(Exception):
    """A request that is answered by a problem and nothing else."""

    def __init__(
        self,
        status: int,
        name: str,
        detail: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or name)
        self.status = status
        self.name = name
        self.detail = detail
        self.headers = headers


def problem(status: int, name: str, detail: str | None = None, **more: Any) -> JSONResponse:
    """The answer."""
    headers = more.pop("headers", None)
    body = Problem(
        type=TYPE + name,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=_clean(detail),
        **more,
    )
    return JSONResponse(
        body.model_dump(exclude_none=True), status, headers=headers, media_type=MEDIA_TYPE
    )


def _clean(text: str | None) -> str | None:
    """Half characters cannot be sent, and control characters are of no use to anybody."""
    if text is None:
        return None
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def install(app: FastAPI) -> None:
    """Answer every error by a problem."""
    app.add_exception_handler(PollingError, _polling_error)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(psycopg.Error, database)
    app.add_exception_handler(PoolTimeout, _busy)
    app.add_middleware(Unforeseen)


def kind(error: PollingError) -> tuple[int, str]:
    """The status that an error of ours is answered with, and the name of its kind."""
    return next((status, name) for kind, status, name in KINDS if isinstance(error, kind))


# Starlette's signature.
async def _polling_error(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    assert isinstance(error, PollingError)
    status, name = kind(error)
    headers = {"Retry-After": "5"} if status == 503 else None
    return problem(status, name, error.message, hint=_clean(hint(error)), headers=headers)


def hint(error: PollingError) -> str | None:
    """What to do next; hints that name a command are for a terminal."""
    return None if not error.hint or "polling " in error.hint or "--" in error.hint else error.hint


async def _refused(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    assert isinstance(error, Refused)
    return problem(error.status, error.name, error.detail, headers=error.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    """Return only the places and messages of Pydantic's errors.

    The errors also hold the input, which may be a password.
    """
    assert isinstance(error, RequestValidationError)
    errors = [_field_error(one) for one in error.errors()[:MOST_ERRORS]]
    return problem(422, "invalid-request", "the request does not fit its schema", errors=errors)


def _field_error(one: Mapping[str, Any]) -> FieldError:
    # A validator's own words may repeat what it was given.
    message = (
        one["msg"] if one["type"] not in ("value_error", "assertion_error") else "cannot be used"
    )
    if one["type"] == "json_invalid":
        return FieldError(where="body", message="this is no JSON")
    place = ".".join(str(part) for part in one["loc"])[:LONGEST_PLACE]
    return FieldError(where=_clean(place) or "", message=_clean(message) or "")


async def _http(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    return problem(error.status_code, phrase.lower().replace(" ", "-"), headers=error.headers)


async def database(request: Request, error: Exception) -> JSONResponse:
    """What is answered where PostgreSQL failed, which is written down."""
    assert isinstance(error, psycopg.Error)
    if passes(error):
        log.warning("PostgreSQL is away: %s", first_line(error))
        return await _busy(request, error)
    _log(request.method, request.url.path, error)
    return problem(500, "internal-error", FAULT)


async def _busy(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    return problem(503, "unavailable", "the database does not answer", headers={"Retry-After": "5"})


class Unforeseen:
    """Answers what nobody foresaw.

    Starlette's own way would raise it again, and the server would log its text and its frames.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            if scope["type"] != "http":
                raise
            _log(scope["method"], scope["path"], error)
            if begun:
                raise Cut from None
            await problem(500, "internal-error", FAULT)(scope, receive, send)


class Cut(Exception):
    """An answer that had begun could not be finished: the connection is closed."""


FAULT = "this is our fault; the log says where it happened"


def _log(method: str, path: str, error: BaseException) -> None:
    """The class alone: the text, and the values in the frames, may hold what was sent."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (
        f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        if trace is not None
        else "an unknown place"
    )
    log.error("%s %s failed: %s in %s", method, repr(path)[1:-1], type(error).__name__, place)
