"""The server: uvicorn, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from core.errors import SettingsError
from core.web.feed_watcher import FeedWatcher

SHUTDOWN_SECONDS = 10
"""For requests under way when it shall end; those that wait for changes are answered at once."""

MAX_CONNECTIONS = 1_000
"""Connections; more are told to come again."""


def serve(
    site: ASGIApp,
    pulse: Callable[[], FeedWatcher],
    host: str,
    port: int,
    begun: Callable[[int], None],
) -> None:
    """Answer requests until told to end.

    Parameters:
      pulse: What those wait for who wait; there is one once it has begun.
      begun: Told the port once it listens there.

    Raises:
      SettingsError: The address cannot be listened on.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        site,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        limit_concurrency=MAX_CONNECTIONS,
    )
    with listener:
        begun(listener.getsockname()[1])
        _Server(config, pulse).run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, pulse: Callable[[], FeedWatcher]) -> None:
        super().__init__(config)
        self._pulse = pulse

    async def shutdown(self, *arguments: Any, **more: Any) -> None:
        """Answer waiting requests before the grace period, which would cut them off."""
        self._pulse().end()
        await super().shutdown(*arguments, **more)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise SettingsError(
            "address-in-use", host=host, port=port, detail=error.strerror or str(error)
        ) from None
