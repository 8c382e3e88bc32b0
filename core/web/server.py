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
"""Grace period for running requests at shutdown; long polls are answered immediately."""

MAX_CONNECTIONS = 1_000
"""Maximum number of connections; further ones get status 503."""


def serve(
    site: ASGIApp,
    feed_watcher: Callable[[], FeedWatcher],
    host: str,
    port: int,
    on_listening: Callable[[int], None],
) -> None:
    """Serve requests until SIGTERM or Ctrl-C.

    Parameters:
      feed_watcher: Returns the watcher that long polls wait for; called after startup.
      on_listening: Called with the port once the server listens.

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
        on_listening(listener.getsockname()[1])
        _Server(config, feed_watcher).run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, feed_watcher: Callable[[], FeedWatcher]) -> None:
        super().__init__(config)
        self._feed_watcher = feed_watcher

    async def shutdown(self, *arguments: Any, **more: Any) -> None:
        """Answer waiting requests before the grace period, which would cut them off."""
        self._feed_watcher().end()
        await super().shutdown(*arguments, **more)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise SettingsError(
            "address-in-use", host=host, port=port, detail=error.strerror or str(error)
        ) from None
