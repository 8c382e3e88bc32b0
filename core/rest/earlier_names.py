"""Query parameters by the names that they had before version 0.1: `account` and `domain`."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

NAMES = {b"account": b"user_integration_id", b"domain": b"integration_domain"}

_NAME = re.compile(rb"(?<![^&])(?:account|domain)(?==)")
_FOREIGN = ("/v1/hints/", "/v1/oauth/")
"""The paths whose parameters providers choose."""


class EarlierNames:
    """Middleware that gives parameters their present names. The document has only these.

    Args:
      app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request. A parameter that is sent by both of its names is refused later."""
        if scope["type"] == "http" and not scope["path"].startswith(_FOREIGN):
            scope["query_string"] = _NAME.sub(lambda name: NAMES[name[0]], scope["query_string"])
        await self.app(scope, receive, send)
