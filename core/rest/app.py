"""The application: routes, errors, limits and headers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.rest.metrics import Metrics
from core.rest.routes import (
    changes,
    content,
    export,
    held_deletions,
    hints,
    integrations,
    oauth,
    operations,
    outages,
    runs,
    tasks,
    tokens,
    user_integrations,
    users,
)
from core.service.backend import Backend
from core.service.content.document_texts import DocumentReader
from core.service.content.search_index import SearchIndexer
from core.web import problems
from core.web.body_limit import BodySize
from core.web.feed_watcher import FeedWatcher
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
    integrations,
    outages,
    user_integrations,
    runs,
    tasks,
    held_deletions,
    content,
    changes,
    export,
    hints,
    users,
    oauth,
    tokens,
    operations,
)


def build(backend: Backend) -> FastAPI:
    """Build the application for a backend.

    The application does not close the backend. While it runs, it also indexes new content for
    search.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.feed_watcher = FeedWatcher(backend)
        threads = (SearchIndexer(backend.database), DocumentReader(backend))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for thread in threads:
                thread.stop()

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
    )
    app.state.backend = backend
    app.state.metrics = Metrics(backend)
    app.state.wrong_tokens = WrongTokens()
    for module in ROUTERS:
        app.include_router(module.router)
    problems.install(app)
    app.add_middleware(BodySize)
    app.add_middleware(Headers)
    app.openapi = partial(_described, app.openapi)  # type: ignore[method-assign]
    app.add_route("/openapi.json", _sender(app))
    return app


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
    """Return the OpenAPI document, with the schema of the problems that routes declare."""
    openapi = document()
    _, problem = models_json_schema(
        [(problems.Problem, "serialization")], ref_template="#/components/schemas/{model}"
    )
    openapi["components"]["schemas"] |= problem["$defs"]
    return openapi


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
