"""The HTTP server, which runs uvicorn until SIGTERM or Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from core.errors import SettingsError
from core.web.feed_watcher import FeedWatcher

SHUTDOWN_SECONDS = 10
"""The grace period for running requests at shutdown. Long polls end immediately."""

MAX_CONNECTIONS = 1_000
"""The maximum number of connections. Further connections get status 503."""


def serve(
    site: ASGIApp,
    feed_watcher: Callable[[], FeedWatcher],
    host: str,
    port: int,
    on_listening: Callable[[int], None],
) -> None:
    """Serve requests until SIGTERM or Ctrl-C.

    Args:
      site: The application to serve.
      feed_watcher: A function that returns the watcher of long polls; called after startup.
      host: The address to listen on.
      port: The port to listen on; 0 selects a free port.
      on_listening: A function that is called with the port once the server listens.

    Raises:
      SettingsError: The server cannot listen on the address.
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
        """Answer long polls first; the grace period would cut them off."""
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
