"""The HTTP server, which runs uvicorn until SIGTERM or Ctrl-C."""

from __future__ import annotations

import logging
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from core.errors import SettingsError
from core.settings import Settings
from core.web.connections import (
    KEEP_ALIVE_SECONDS,
    MAX_HEADER_BYTES,
    BoundedProtocol,
    Connections,
)
from core.web.feed_watcher import FeedWatcher
from core.web.gate import Gate

SHUTDOWN_SECONDS = 10
"""The grace period for running requests at shutdown. Long polls end immediately."""

OTHER_FILES = 256
"""Open files of the process that are not connections of clients."""

BACKLOG = 4_096
"""Connections that the kernel keeps until the server accepts them; the kernel has a bound too."""

MAX_ACCEPTED = 16
"""Connections that the server accepts before it continues with running requests: some 4 ms."""

UNINTERESTING = ("Invalid HTTP request received.", "Unsupported upgrade request.")
"""Warnings of uvicorn that any client can cause as often as it wants."""


def serve(
    site: ASGIApp,
    settings: Settings,
    feed_watcher: Callable[[], FeedWatcher],
    host: str,
    port: int,
    on_listening: Callable[[int], None],
) -> None:
    """Serve requests until SIGTERM or Ctrl-C.

    Args:
      site: The application to serve.
      settings: The settings with the hosts, the proxies and the bounds.
      feed_watcher: A function that returns the watcher of long polls; called after startup.
      host: The address to listen on.
      port: The port to listen on; 0 selects a free port.
      on_listening: A function that is called with the port once the server listens.

    Raises:
      SettingsError: The server cannot listen on the address.
    """
    listener = _listen(host, port)
    config = configured(site, settings, host)
    with listener:
        on_listening(listener.getsockname()[1])
        _Server(config, feed_watcher).run(sockets=[listener])


def configured(site: ASGIApp, settings: Settings, host: str) -> uvicorn.Config:
    """Return uvicorn's configuration for an application behind the gate."""
    gate = Gate(site, settings, host)
    connections = Connections(
        max_connections(settings),
        settings.max_connections_per_address,
        gate.proxies.__contains__,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_interesting)
    return uvicorn.Config(
        gate,
        http=cast("type[BoundedProtocol]", partial(BoundedProtocol, connections)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=MAX_ACCEPTED,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )


def max_connections(settings: Settings) -> int:
    """Return the number of connections for which this process may open enough files.

    The soft limit of the process is raised first, up to its hard limit.
    """
    wanted = settings.max_connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # some systems have a lower bound of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    files = wanted if soft == resource.RLIM_INFINITY else soft
    return min(settings.max_connections, max(files - OTHER_FILES, files // 2))


def _is_interesting(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(UNINTERESTING)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, feed_watcher: Callable[[], FeedWatcher]) -> None:
        super().__init__(config)
        self._feed_watcher = feed_watcher

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and let the kernel keep more connections than uvicorn accepts in one step."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)

    async def shutdown(self, *arguments: Any, **more: Any) -> None:
        """Answer long polls first; the grace period would cut them off."""
        self._feed_watcher().end()
        await super().shutdown(*arguments, **more)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            "address-in-use", host=host, port=port, detail=error.strerror or str(error)
        ) from None
