"""The server: uvicorn, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import uvicorn

from core.api.backend import Backend
from core.rest.app import build

GRACE_SECONDS = 10
"""For requests under way when it shall end; those that wait for changes are cut short."""

MOST_AT_ONCE = 1_000
"""Connections; more are told to come again."""


def serve(backend: Backend, host: str, port: int) -> None:
    """Answer requests until told to end."""
    config = uvicorn.Config(
        build(backend),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        limit_concurrency=MOST_AT_ONCE,
    )
    uvicorn.Server(config).run()
