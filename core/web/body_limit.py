"""A limit on the size of request bodies."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.web.problems import HttpProblem, problem

MAX_BODY_BYTES = 1024 * 1024
"""The maximum size of a request body. The largest bodies hold a config and credentials."""


class BodySize:
    """Middleware that refuses large request bodies with status 413.

    It checks the header `Content-Length` and counts the bytes that arrive.

    Args:
      app: The application to protect.
      most: The maximum number of bytes.
    """

    def __init__(self, app: ASGIApp, most: int = MAX_BODY_BYTES) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and refuse it once its body is too large."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > self.most:
            await self._refuse(scope, receive, send)
            return
        left = self.most

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                # While FastAPI reads a body, it lets only this exception through.
                raise HTTPException(413)
            return message

        await self.app(scope, counted, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await problem(HttpProblem("too-large"))(scope, receive, send)
