"""The access log: one line for each request. An operator switches it on."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.ledger.audit import current_actor

log = logging.getLogger(__name__)


class AccessLog:
    """Middleware that logs each request after its response.

    A line has the client, the method, the path without its query, the status, the size, the
    duration, and the token or the person. A query may contain the words of a search.

    Args:
      app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and log it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, size = time.monotonic(), 0, 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            status = message.get("status", status)
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            actor = current_actor()
            author = f"token {actor.token_id or '-'}" if actor.name is None else actor.name
            log.info(
                "%s %s %s %d, %d bytes, %.1f ms, %s",
                actor.address or "-",
                scope["method"],
                repr(scope["path"])[1:-1],
                status,
                size,
                1_000 * (time.monotonic() - began),
                author,
            )
