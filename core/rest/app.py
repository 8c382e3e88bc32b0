"""The application: routes, errors, limits and headers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.rest import contract
from core.rest.contract import WRITES, Contract
from core.rest.earlier_names import EarlierNames
from core.rest.idempotency import PARAMETER, WITHOUT, Idempotency
from core.rest.metrics import Metrics
from core.rest.routes import (
    audit,
    changes,
    content,
    export,
    held_deletions,
    hints,
    integrations,
    limits,
    oauth,
    operations,
    organizations,
    outages,
    runs,
    subscriptions,
    tasks,
    tokens,
    user_integrations,
    users,
)
from core.rest.routes import problems as problem_responses
from core.service.backend import Backend
from core.service.content.search_index import SearchIndexer
from core.web import problems
from core.web.body_limit import BodySize
from core.web.feed_watcher import FeedWatcher
from core.web.representations import Head, Representations
from core.web.wrong_tokens import WrongTokens

ABOUT = """
Connect the accounts that users have with other services, sync them on a schedule, and read their
content.

Send a token with every request: `Authorization: Bearer …`. Its scopes name its permissions; without
the scope that a request needs, the response is 403. An operator's token has them for all data. A
user's token has them for that user's data only: for the ID of another user's object, the response
is 404.

Lists are paginated: pass the `cursor` of a page as `after` to get the next one. A page with large
items is shorter than `limit`; only a page without a cursor is the last one. Errors are problem
details ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). Their `code` is stable; the texts may
change.
"""

ROUTERS = (
    operations,  # routes are compared in this order, and probes come most often
    integrations,
    outages,
    limits,
    user_integrations,
    runs,
    tasks,
    held_deletions,
    content,
    changes,
    subscriptions,
    export,
    hints,
    users,
    oauth,
    tokens,
    audit,
    organizations,
)


TAGS = {
    "integrations": "The installed integrations and their outages.",
    "user integrations": "The accounts that users have connected.",
    "organizations": "Sets of credentials, each for the accounts of all members.",
    "runs": "The syncs of accounts.",
    "tasks": "The steps of runs, and actions on those that have stopped.",
    "held deletions": "Unusually large deletions, which wait for a person.",
    "content": "The items of accounts, with search, threads and downloads.",
    "changes": "The change feed and exports.",
    "subscriptions": "Receivers of content and of conditions.",
    "hints": "Events that providers send.",
    "users": "The users who own accounts, with their use and quotas.",
    "oauth": "Connections in a browser.",
    "tokens": "The tokens of this API.",
    "audit": "The audit trail: who did what.",
    "operations": "Liveness, readiness and metrics.",
}
"""The groups of routes, in the order of the document."""

CORS_SENT = (
    *("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "If-Range"),
    *("Range", "X-Request-Id"),
)
CORS_EXPOSED = (
    *("Content-Disposition", "Content-Range", "ETag", "Export-Cursor", "Idempotency-Replayed"),
    *("Location", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After"),
    "X-Request-Id",
)
"""Headers that scripts of the allowed origins may send and read."""


def build(backend: Backend) -> FastAPI:
    """Build the application for a backend.

    The application does not close the backend. While it runs, it also indexes new content for
    search.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.feed_watcher = FeedWatcher(backend)
        indexer = SearchIndexer(backend.database)
        indexer.start()
        try:
            yield
        finally:
            indexer.stop()

    app = FastAPI(
        title="integration polling",
        version=version("integration-polling"),
        description=ABOUT,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # A redirect would use the untrusted Host header, and HTTP behind a proxy that terminates
        # TLS.
        redirect_slashes=False,
        dependencies=[Depends(contract.in_document)],
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        servers=[{"url": "/", "description": "This server"}],
        license_info={"name": "MIT", "identifier": "MIT"},
        contact={"name": "The operator of this server"},
    )
    app.state.backend = backend
    app.state.metrics = Metrics(backend)
    app.state.wrong_tokens = WrongTokens()
    for module in ROUTERS:
        app.include_router(module.router)
    app.state.contract = Contract(app, _routes())
    app.add_middleware(Idempotency)
    problems.install(app)
    app.add_exception_handler(405, problems.with_methods(app.state.contract.methods))
    app.add_middleware(BodySize)
    app.add_middleware(Representations)
    app.add_middleware(EarlierNames)
    app.add_middleware(Head)
    app.add_middleware(Headers)
    app.add_middleware(OtherOrigins, backend=backend)
    app.openapi = partial(_described, app.openapi)  # type: ignore[method-assign]
    app.add_api_route("/openapi.json", _sender(app), include_in_schema=False)
    return app


def _routes() -> Iterator[APIRoute]:
    for module in ROUTERS:
        yield from (route for route in module.router.routes if isinstance(route, APIRoute))


def _sender(app: FastAPI) -> Callable[[Request], Awaitable[Response]]:
    """Return the route of the OpenAPI document.

    Everybody may read it, also without a token. So its text is made once: each time would occupy
    the event loop for some milliseconds.
    """
    text = cache(lambda: json.dumps(app.openapi(), ensure_ascii=False).encode())

    async def openapi(_: Request) -> Response:
        return Response(text(), media_type="application/json")

    return openapi


def _described(document: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the OpenAPI document, with the properties that all routes share.

    They are the schema of problems, the problem of an invalid request, and the keys of writes.
    """
    openapi = document()
    schemas = openapi["components"]["schemas"]
    if "Problem" in schemas:
        return openapi
    _, problem = models_json_schema(
        [(problems.Problem, "serialization")], ref_template="#/components/schemas/{model}"
    )
    schemas |= problem["$defs"]
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            operation["responses"] |= {
                str(status): answer for status, answer in problem_responses(422).items()
            }
            if "requestBody" in operation:  # it may be too large, or impossible to read
                operation["responses"] |= {
                    str(status): answer
                    for status, answer in problem_responses(400, 413).items()
                    if str(status) not in operation["responses"]
                }
            if method in WRITES and not path.startswith(WITHOUT):
                operation.setdefault("parameters", []).append(PARAMETER)
                operation["responses"] |= {
                    str(status): answer for status, answer in problem_responses(409).items()
                }
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return openapi


class OtherOrigins:
    """Middleware that lets scripts of the allowed origins call the API.

    Args:
      app: The application.
      backend: The backend, whose settings name the origins.
    """

    def __init__(self, app: ASGIApp, backend: Backend) -> None:
        origins = backend.settings.cors_origins
        self.app = (
            CORSMiddleware(
                app,
                allow_origins=origins,
                allow_methods=["GET", "HEAD", "POST", "PATCH", "DELETE"],
                allow_headers=CORS_SENT,
                expose_headers=CORS_EXPOSED,
            )
            if origins
            else app
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or answer the question of a browser whether it may send one."""
        await self.app(scope, receive, send)


class Headers:
    """Middleware that adds default headers: no caching, and no guessing of content types."""

    DEFAULTS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, and add the default headers that the response does not set."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.DEFAULTS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)
