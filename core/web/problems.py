"""Errors as problem details (https://www.rfc-editor.org/rfc/rfc9457), worded by the catalogue.

No secret that was sent is repeated in them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
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

from core.db.errors import describe
from core.db.pool import passes
from core.errors import PollingError
from core.logs import place

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:integration-polling:problem:"

HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    503: {"Retry-After": "5"},
}
"""What answers of these statuses carry."""
MAX_LOCATION_CHARS = 200
MAX_ERRORS = 20

log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """What is wrong with one part of a request."""

    where: str = Field(description="`query.limit`, `body.name`, …")
    message: str


class Problem(BaseModel):
    """What went wrong, and what can be done about it."""

    type: str = Field(description=f"`{TYPE}` and the code")
    title: str = Field(description="The status in words")
    status: int
    code: str = Field(
        description="What went wrong; stays the same whatever the text says. All codes:"
        " `docs/reference/errors.md`"
    )
    detail: str = Field(description="What went wrong, in words")
    next_step: str = Field(description="What to do next, in words")
    errors: list[FieldError] | None = None


class HttpProblem(PollingError):
    """A surface turns a request away, whatever it asks for."""


def problem(
    error: PollingError,
    *,
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer to a request that failed with this error.

    Parameters:
      errors: What is wrong with single parts of the request.
      headers: Beside those of the status.
    """
    body = Problem(
        type=TYPE + error.code,
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        code=error.code,
        detail=_clean(error.message),
        next_step=_clean(error.next_step("rest")),
        errors=errors,
    )
    return JSONResponse(
        body.model_dump(exclude_none=True),
        error.status,
        headers={**HEADERS.get(error.status, {}), **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def _clean(text: str) -> str:
    """Half characters cannot be sent, and control characters are of no use to anybody."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def install(app: FastAPI) -> None:
    """Answer every error by a problem."""
    app.add_exception_handler(PollingError, _polling_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(psycopg.Error, database)
    app.add_exception_handler(PoolTimeout, _busy)
    app.add_middleware(UnexpectedErrors)


async def _polling_error(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001  Starlette's signature
    assert isinstance(error, PollingError)
    return problem(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    """Return only the places and messages of Pydantic's errors.

    The errors also hold the input, which may be a password.
    """
    assert isinstance(error, RequestValidationError)
    errors = [_field_error(detail) for detail in error.errors()[:MAX_ERRORS]]
    return problem(HttpProblem("invalid-request"), errors=errors)


def _field_error(detail: Mapping[str, Any]) -> FieldError:
    # A validator's own words may repeat what it was given.
    message = (
        detail["msg"]
        if detail["type"] not in ("value_error", "assertion_error")
        else "cannot be used"
    )
    if detail["type"] == "json_invalid":
        return FieldError(where="body", message="invalid JSON")
    where = ".".join(str(part) for part in detail["loc"])[:MAX_LOCATION_CHARS]
    return FieldError(where=_clean(where), message=_clean(message))


async def _http(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    assert isinstance(error, HTTPException)
    return problem(http_error(error.status_code), headers=error.headers)


def http_error(status: int) -> PollingError:
    """What Starlette and FastAPI answer by themselves, as an error of the catalogue."""
    match status:
        case 404:
            return HttpProblem("address-not-found")
        case 405:
            return HttpProblem("method-not-allowed")
        case 413:
            return HttpProblem("too-large")
    return HttpProblem("bad-request")


async def database(request: Request, error: Exception) -> JSONResponse:
    """What is answered where PostgreSQL failed, which is written down."""
    assert isinstance(error, psycopg.Error)
    if passes(error):
        log.warning("PostgreSQL is not available: %s", describe(error))
        return await _busy(request, error)
    _log(request.method, request.url.path, error)
    return problem(HttpProblem("internal-error"))


async def _busy(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    return problem(HttpProblem("database-busy"))


class UnexpectedErrors:
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
                raise TruncatedResponse from None
            await problem(HttpProblem("internal-error"))(scope, receive, send)


class TruncatedResponse(Exception):
    """An answer that had begun could not be finished: the connection is closed."""


def _log(method: str, path: str, error: BaseException) -> None:
    """The class alone: the text, and the values in the frames, may hold what was sent."""
    log.error("%s %s failed: %s", method, repr(path)[1:-1], place(error))
