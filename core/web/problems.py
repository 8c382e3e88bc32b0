"""Errors as problem details (https://www.rfc-editor.org/rfc/rfc9457) with the catalogue's texts.

They never repeat values from the request, which may be secrets.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg_pool import PoolTimeout
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.db.errors import describe
from core.db.pool import passes
from core.errors import InvalidFields, PollingError
from core.field_problems import field_problem
from core.logs import place, request_id

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:integration-polling:problem:"

HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": "5"},
    503: {"Retry-After": "5"},
}
"""Headers of error responses, by status."""

RETRY_AFTER: Mapping[str, str] = {
    "address-too-fast": "1",
    "user-too-fast": "1",
    "proxy-too-fast": "1",
    "wrong-tokens-too-many": "60",
}
"""Seconds to wait before the next request, for errors that differ from their status."""

PERIODS: Mapping[str, int] = {
    "runs-quota-reached": 86_400,
    "runs-exhausted": 3_600,
    "sign-ins-exhausted": 3_600,
}
"""Periods of UTC in seconds, for errors that last until the next one begins."""

MAX_LOCATION_CHARS = 200
MAX_ERRORS = 20

log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """An error in one part of a request."""

    where: str = Field(description="The invalid part, such as `query.limit` or `body.name`")
    message: str


class Problem(BaseModel):
    """A problem, and the next step to solve it."""

    type: str = Field(description=f"`{TYPE}`, followed by the code")
    title: str = Field(description="The name of the HTTP status")
    status: int
    code: str = Field(
        description="A stable code of the problem. All codes: `docs/reference/errors.md`"
    )
    detail: str = Field(description="A description of the problem, for people")
    next_step: str = Field(description="The next step, for people")
    request_id: str | None = Field(
        None, description="The name of the request, as in the header `X-Request-Id` and in the log"
    )
    errors: list[FieldError] | None = Field(None, description="Errors in parts of the request")


class HttpProblem(PollingError):
    """An error of HTTP handling, independent of the operation that was requested."""


def problem(
    error: PollingError,
    *,
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return the response for an error.

    Args:
      error: The error.
      errors: Errors in parts of the request. Default: the problems of invalid fields.
      headers: Headers to add to the headers of the status. Default: none.
    """
    body = Problem(
        type=TYPE + error.code,
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        code=error.code,
        detail=_clean(error.message),
        next_step=_clean(error.next_step("rest")),
        request_id=request_id.get(),
        errors=errors or _errors_of(error),
    )
    return JSONResponse(
        body.model_dump(exclude_none=True),
        error.status,
        headers={**headers_of(error), **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def _errors_of(error: PollingError) -> list[FieldError] | None:
    """Return the errors of the invalid fields of a config or of credentials."""
    if not isinstance(error, InvalidFields):
        return None
    places = [
        (f"body.{error.part}{f'.{name}' if name else ''}", text)
        for name, text in error.problems.items()
    ]
    return [_at(place, text) for place, text in places[:MAX_ERRORS]] or None


def headers_of(error: PollingError) -> dict[str, str]:
    """Return the headers of the response for an error."""
    wait = RETRY_AFTER.get(error.code)
    if period := PERIODS.get(error.code):
        wait = str(math.ceil(period - time.time() % period))
    return {**HEADERS.get(error.status, {}), **({} if wait is None else {"Retry-After": wait})}


def _clean(text: str) -> str:
    """Replace unpaired surrogates, which cannot be encoded, and control characters."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def install(app: FastAPI) -> None:
    """Make an application return a problem for every error."""
    app.add_exception_handler(PollingError, _polling_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(psycopg.Error, _database)
    app.add_exception_handler(PoolTimeout, _busy)
    app.add_middleware(UnexpectedErrors)


async def _polling_error(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001  Starlette's signature
    assert isinstance(error, PollingError)
    return problem(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    assert isinstance(error, RequestValidationError)
    return invalid(error)


def invalid(error: RequestValidationError) -> JSONResponse:
    """Return the locations and messages of Pydantic's errors.

    Omit the input, which may be a password.
    """
    errors = [_field_error(detail) for detail in error.errors()[:MAX_ERRORS]]
    return problem(HttpProblem("invalid-request"), errors=errors)


def _field_error(detail: Mapping[str, Any]) -> FieldError:
    problem = field_problem(detail)
    if problem.kind == "json_invalid":
        return FieldError(where="body", message="invalid JSON")
    return _at(problem.place, "invalid value" if problem.may_quote else problem.message)


def _at(place: str, message: str) -> FieldError:
    return FieldError(where=_clean(place[:MAX_LOCATION_CHARS]), message=_clean(message))


async def _http(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    assert isinstance(error, HTTPException)
    return problem(http_error(error.status_code), headers=error.headers)


def with_methods(methods: Callable[[Request], list[str]]) -> Callable[..., Awaitable[JSONResponse]]:
    """Return a handler of status 405 that names all methods of a path.

    Starlette names the methods of one route only.

    Args:
      methods: A function that returns the methods of the path of a request.
    """

    async def not_allowed(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
        headers = {"Allow": ", ".join(methods(request))}
        return problem(HttpProblem("method-not-allowed"), headers=headers)

    return not_allowed


def http_error(status: int) -> PollingError:
    """Return the error of the catalogue for a status that Starlette or FastAPI raised."""
    match status:
        case 404:
            return HttpProblem("address-not-found")
        case 405:
            return HttpProblem("method-not-allowed")
        case 408:
            return HttpProblem("request-timeout")
        case 413:
            return HttpProblem("too-large")
        case 429:
            return HttpProblem("address-busy")
        case 503:
            return HttpProblem("server-busy")
    return HttpProblem("bad-request")


def database_error(request: Request, error: Exception) -> PollingError:
    """Log an error of PostgreSQL, and return the error of the catalogue for it."""
    assert isinstance(error, psycopg.Error)
    if passes(error):
        log.warning("PostgreSQL is not available: %s", describe(error))
        return HttpProblem("database-busy")
    _log(request.method, request.url.path, error)
    return HttpProblem("internal-error")


async def _database(request: Request, error: Exception) -> JSONResponse:
    return problem(database_error(request, error))


async def _busy(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    return problem(HttpProblem("database-busy"))


class UnexpectedErrors:
    """Middleware that answers unexpected errors with status 500.

    Starlette would raise the error again, and the server would log its text and its frames.

    Args:
      app: The application.
      respond: Returns the response for an error. Default: a problem.
    """

    def __init__(self, app: ASGIApp, respond: Callable[[PollingError], ASGIApp] = problem) -> None:
        self.app = app
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and log an unexpected error by its class and location."""
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except ClientDisconnect:
            return  # the client is gone
        except AccessEnded:
            raise  # the server works
        except Exception as error:
            if scope["type"] != "http":
                raise
            _log(scope["method"], scope["path"], error)
            if begun:
                raise TruncatedResponse from None
            await self._respond(HttpProblem("internal-error"))(scope, receive, send)


class TruncatedResponse(Exception):
    """A response failed after its start. The server closes the connection."""


class AccessEnded(TruncatedResponse):
    """The token or the session of a request ended while its response was sent."""


def _log(method: str, path: str, error: BaseException) -> None:
    """Log only the class and the location of an error: its text may contain request data."""
    log.error("%s %s failed: %s", method, repr(path)[1:-1], place(error))
