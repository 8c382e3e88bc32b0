"""Limits on the size of request bodies, and on the values in them."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.web.problems import HttpProblem, problem

MAX_BODY_BYTES = 1024 * 1024
"""The maximum size of a request body. The largest bodies hold a config and credentials."""

MAX_BODY_VALUES = 20_000
"""The maximum number of values in a body, estimated by its commas and brackets.

The server parses JSON before it knows the user. An empty list of three bytes is an object of 72.
"""


class BodySize:
    """Middleware that refuses large request bodies with status 413.

    It checks the header `Content-Length`, and counts the bytes and values that arrive.

    Args:
      app: The application to protect.
      most: The maximum number of bytes.
      most_values: The maximum number of values.
    """

    def __init__(
        self, app: ASGIApp, most: int = MAX_BODY_BYTES, most_values: int = MAX_BODY_VALUES
    ) -> None:
        self.app = app
        self.most = most
        self.most_values = most_values

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and refuse it once its body is too large."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > self.most:
            await self._refuse(scope, receive, send)
            return
        left, values_left = self.most, self.most_values

        async def counted() -> Message:
            nonlocal left, values_left
            message = await receive()
            body: bytes = message.get("body", b"")
            left -= len(body)
            values_left -= sum(map(body.count, (b",", b"[", b"{")))
            if left < 0 or values_left < 0:
                # While FastAPI reads a body, it lets only this exception through.
                raise HTTPException(413)
            return message

        await self.app(scope, counted, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await problem(HttpProblem("too-large"))(scope, receive, send)
