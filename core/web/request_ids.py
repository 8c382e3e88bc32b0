"""`X-Request-Id`: the name of a request in its response, in its problem, and in log lines."""

from __future__ import annotations

import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.logs import request_id

HEADER = "X-Request-Id"

SHAPE = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""The shape of a client's own name. Another one could forge a log line, so it is replaced."""


class RequestIds:
    """Middleware that names each request: by its header `X-Request-Id`, or else at random.

    Args:
      app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name a request, and add the name to its response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(HEADER, "")
        name = sent if SHAPE.fullmatch(sent) else uuid4().hex

        async def with_name(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                MutableHeaders(scope=message)[HEADER] = name
            await send(message)

        token = request_id.set(name)
        try:
            await self.app(scope, receive, with_name)
        finally:
            request_id.reset(token)
