"""The dashboard application, and the site that serves it together with the API."""

from __future__ import annotations

from pathlib import Path

import psycopg
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from core.dashboard import rendering
from core.dashboard.live import Live
from core.dashboard.pages import (
    access,
    accounts,
    actions,
    audit,
    auth,
    bulk,
    connect,
    content,
    deletions,
    edit,
    limits,
    oauth,
    organizations,
    overview,
    parked,
    runs,
    sign_on,
    subscriptions,
    users,
)
from core.dashboard.session import SignInRequired
from core.dashboard.wording import sentence, sentences
from core.errors import PollingError
from core.rest.app import Headers
from core.service.accounts.oauth import CALLBACK
from core.web import problems
from core.web.body_limit import BodySize
from core.web.representations import Head

API = ("/v1/", "/healthz", "/readyz", "/metrics", "/openapi.json")
STATIC = Path(__file__).with_name("static")
PAGES = (
    auth,
    sign_on,
    access,
    overview,
    accounts,
    bulk,
    actions,
    edit,
    connect,
    oauth,
    runs,
    parked,
    deletions,
    content,
    users,
    limits,
    audit,
    organizations,
    subscriptions,
)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " frame-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


class PageHeaders(Headers):
    """Default headers of all pages."""

    DEFAULTS = Headers.DEFAULTS | {
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Frame-Options": "DENY",
    }


class Site:
    """An ASGI application that routes requests to the API or to the dashboard."""

    def __init__(self, rest: FastAPI) -> None:
        self.rest = rest
        self.pages = _build(rest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass API paths and lifespan events to the API, and all other paths to the dashboard."""
        app: ASGIApp = self.rest if _is_api(scope) else self.pages
        await app(scope, receive, send)


def _is_api(scope: Scope) -> bool:
    if scope["type"] == "lifespan":
        return True
    path: str = scope["path"]
    # Providers have this address, but a person's browser opens it.
    return (path.startswith(API) and path != CALLBACK) or path == "/v1"


def _build(rest: FastAPI) -> FastAPI:
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.state.backend = rest.state.backend
    app.state.rest = rest
    app.state.wrong_tokens = rest.state.wrong_tokens
    app.state.live = Live()
    app.state.provider = None
    for module in PAGES:
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_exception_handler(SignInRequired, _sign_in_required)
    app.add_exception_handler(PollingError, _polling_error)
    app.add_exception_handler(RequestValidationError, _not_found)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(psycopg.Error, _database)
    app.add_exception_handler(PoolTimeout, _busy)
    app.add_middleware(problems.UnexpectedErrors, respond=_failed)
    app.add_middleware(BodySize)
    app.add_middleware(Head)
    app.add_middleware(PageHeaders)
    return app


# Starlette passes both arguments.
async def _sign_in_required(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if request.method != "GET" or "text/event-stream" in request.headers.get("accept", ""):
        return _error_page(401, "Your session has ended", "Sign in and try again.")
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse("/sign-in" + rendering.query(next=path if path != "/" else None), 303)


async def _polling_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, PollingError)
    return _failed(error)


def _failed(error: PollingError) -> Response:
    # A page that does not exist needs no next step: the error page links to the overview.
    detail = sentence(error.message) if error.status == 404 else sentences(error)
    page = _error_page(error.status, TITLES.get(error.status, "Something went wrong"), detail)
    page.headers.update(problems.headers_of(error))
    return page


async def _not_found(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return _failed(problems.http_error(404))


async def _http(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, HTTPException)
    return _failed(problems.http_error(error.status_code))


async def _database(request: Request, error: Exception) -> Response:
    return _failed(problems.database_error(request, error))


async def _busy(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return _failed(problems.HttpProblem("database-busy"))


TITLES = {
    403: "Access denied",
    404: "Not found",
    405: "Not found",
    409: "Action not possible",
    413: "Request too large",
    422: "Invalid input",
    429: "Too many requests",
    502: "Provider unavailable",
    503: "Temporarily unavailable",
}
"""Titles of error pages for each HTTP status."""


def _error_page(status: int, title: str, detail: str) -> Response:
    return Response(
        rendering.page("error.html", {"title": title, "detail": detail}),
        status,
        media_type="text/html; charset=utf-8",
    )
