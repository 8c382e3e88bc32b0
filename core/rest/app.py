"""The application: routes, errors, bounds and headers put together around one backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.rest.metrics import Metrics
from core.rest.routes import (
    changes,
    content,
    integrations,
    oauth,
    operations,
    runs,
    tasks,
    user_integrations,
    users,
)
from core.service.backend import Backend
from core.service.content.search_index import SearchIndexer
from core.web import problems
from core.web.body_limit import BodySize
from core.web.feed_watcher import FeedWatcher

ABOUT = """
What people have in other services, kept here and polled on a schedule.

Send a token with every request: `Authorization: Bearer …`. An operator creates it. A user's token
sees what is that user's; what is another's is answered as if it were not there.

Listings are read page by page: give a page's `cursor` as `after`. Errors are problem details
([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)); their `code` stays the same whatever the text
says.
"""

ROUTERS = (integrations, user_integrations, runs, tasks, content, changes, users, oauth, operations)


def build(backend: Backend) -> FastAPI:
    """The application.

    It answers with this backend and does not close it; content is made searchable while it runs.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.pulse = FeedWatcher(backend)
        follower = SearchIndexer(backend.database)
        follower.start()
        try:
            yield
        finally:
            follower.stop()

    app = FastAPI(
        title="integration polling",
        version=version("integration-polling"),
        description=ABOUT,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
        docs_url=None,
        redoc_url=None,
        # it would lead to where the Host header says, by HTTP where a proxy has TLS, with what was
        # sent
        redirect_slashes=False,
    )
    app.state.backend = backend
    app.state.metrics = Metrics(backend)
    for module in ROUTERS:
        app.include_router(module.router)
    problems.install(app)
    app.add_middleware(BodySize)
    app.add_middleware(Headers)
    app.openapi = partial(_described, app.openapi)  # type: ignore[method-assign]
    return app


def _described(document: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The OpenAPI document, with the problems that routes name."""
    openapi = document()
    _, problem = models_json_schema(
        [(problems.Problem, "serialization")], ref_template="#/components/schemas/{model}"
    )
    openapi["components"]["schemas"] |= problem["$defs"]
    return openapi


class Headers:
    """Headers of every answer, unless a route sets others.

    No cache keeps the answer, and no browser guesses its type.
    """

    DEFAULTS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.DEFAULTS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)
