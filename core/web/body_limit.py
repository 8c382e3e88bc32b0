"""How much a request may carry."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.web.problems import HttpProblem, problem

MAX_BODY_BYTES = 1024 * 1024
"""Of a request's body. The largest there is holds a config and credentials."""


class BodySize:
    """Refuses larger bodies with 413, by what they announce and by what comes.

    Parameters:
      most: Bytes.
    """

    def __init__(self, app: ASGIApp, most: int = MAX_BODY_BYTES) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
                # FastAPI passes no other exception on that comes while it reads.
                raise HTTPException(413)
            return message

        await self.app(scope, counted, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await problem(HttpProblem("too-large"))(scope, receive, send)
