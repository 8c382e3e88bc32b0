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
from core.web.access_log import AccessLog
from core.web.connections import (
    KEEP_ALIVE_SECONDS,
    MAX_HEADER_BYTES,
    BoundedProtocol,
    Connections,
    network_of,
)
from core.web.feed_watcher import FeedWatcher
from core.web.gate import Gate, Proxies
from core.web.problems import AccessEnded
from core.web.request_ids import RequestIds
from core.web.request_rates import Rate

SHUTDOWN_SECONDS = 10
"""The grace period for running requests at shutdown. Long polls end immediately."""

OTHER_FILES = 256
"""Open files of the process that are not connections of clients."""

BACKLOG = 4_096
"""Connections that the kernel keeps until the server accepts them; the kernel has a bound too."""

MAX_ACCEPTED = 16
"""Connections that the server accepts before it continues with running requests: some 2 ms."""

CONNECTIONS_PER_SECOND = 500.0
"""Connections that one address may open per second, except a proxy."""

SILENT_CONNECTIONS_PER_SECOND = 500.0
"""Connections without data that a proxy may open per second, besides those that send a request.

A program on the machine of a proxy has its address.
"""

CONNECTION_BURST_SECONDS = 2.0

MAX_DROPPED = 32
"""Connections that are dropped before the server continues with running requests: some 1 ms."""

_ESTABLISHED = 1
"""The state of a TCP connection that both sides keep open, as Linux counts the states."""

UNINTERESTING = (
    "Invalid HTTP request received.",
    "Unsupported upgrade request.",
    "No supported WebSocket library detected.",
)
"""Warnings of uvicorn that any client can cause as often as it wants."""


def serve(
    site: ASGIApp,
    settings: Settings,
    feed_watcher: Callable[[], FeedWatcher],
    host: str,
    port: int,
    on_listening: Callable[[int], None],
    fd: int | None = None,
) -> None:
    """Serve requests until SIGTERM or Ctrl-C.

    Args:
      site: The application to serve.
      settings: The settings with the hosts, the proxies and the bounds.
      feed_watcher: A function that returns the watcher of long polls; called after startup.
      host: The address to listen on.
      port: The port to listen on; 0 selects a free port.
      on_listening: A function that is called with the port once the server listens.
      fd: The file descriptor of a listening socket to use instead of host and port. Default: none.

    Raises:
      SettingsError: The server cannot listen on the address.
    """
    config = configured(site, settings, host)
    is_proxy = Proxies(settings.trusted_proxies).__contains__
    with _listen(host, port, is_proxy, fd) as listener:
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
        RequestIds(AccessLog(gate) if settings.access_log else gate),
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
    error = record.exc_info[1] if record.exc_info else None
    return not (str(record.msg).startswith(UNINTERESTING) or isinstance(error, AccessEnded))


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


class ListeningSocket(socket.socket):
    """A socket that closes new connections that need no service.

    They are those of an address that opens too many, and those whose client has left already. A
    proxy connects for many clients: too many of its connections are closed only if they are silent.
    Closing one costs a tenth of the time of a connection that is served. Connections of others
    would otherwise wait behind them, for seconds if a program connects and leaves in a loop.

    Args:
      listener: A listening socket, which this one replaces.
      is_proxy: A function that returns True for the addresses of proxies.
    """

    def __init__(self, listener: socket.socket, is_proxy: Callable[[str], bool]) -> None:
        # asyncio sets TCP_NODELAY only for sockets that name their protocol. Without it, a response
        # on a kept-alive connection waits some 40 ms for the client's acknowledgement.
        family, kind = listener.family, listener.type
        super().__init__(family, kind, socket.IPPROTO_TCP, listener.detach())
        self._is_proxy = is_proxy
        self._rate = Rate(CONNECTIONS_PER_SECOND, CONNECTION_BURST_SECONDS)
        self._silent = Rate(SILENT_CONNECTIONS_PER_SECOND, CONNECTION_BURST_SECONDS)

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection, as `socket.accept` does."""
        for _ in range(MAX_DROPPED):
            connection, address = super().accept()
            if self._allows(connection, address[0]) and not _has_left(connection):
                return connection, address
            connection.close()
        raise BlockingIOError

    def _allows(self, connection: socket.socket, address: str) -> bool:
        """Count a new connection. Return False if its address opens too many."""
        if not self._is_proxy(address):
            return self._rate.take(network_of(address))
        return _has_data(connection) or self._silent.take(address)


def _has_data(connection: socket.socket) -> bool:
    """Return True if a part of a request has arrived."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


def _has_left(connection: socket.socket) -> bool:
    """Return True if the client has closed the connection, or its side of it.

    It would seldom get a response: asyncio closes a connection at the end of its input. Only Linux
    tells the state of a connection; elsewhere the result is False.
    """
    if not hasattr(socket, "TCP_INFO"):
        return False
    # The first field of `struct tcp_info`: https://man7.org/linux/man-pages/man7/tcp.7.html
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] != _ESTABLISHED


def _listen(
    host: str, port: int, is_proxy: Callable[[str], bool], fd: int | None = None
) -> ListeningSocket:
    if fd is not None:
        listener = ListeningSocket(socket.socket(fileno=fd), is_proxy)
        listener.set_inheritable(False)
        return listener
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            "address-in-use", host=host, port=port, detail=error.strerror or str(error)
        ) from None
    return ListeningSocket(bound, is_proxy)
