"""The server: uvicorn, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from core.api.backend import Backend
from core.errors import SettingsError
from core.rest.app import build

GRACE_SECONDS = 10
"""For requests under way when it shall end; those that wait for changes are cut short."""

MOST_AT_ONCE = 1_000
"""Connections; more are told to come again."""


def serve(backend: Backend, host: str, port: int, begun: Callable[[int], None]) -> None:
    """Answer requests until told to end.

    Parameters:
      begun: Told the port once it listens there.

    Raises:
      SettingsError: The address cannot be listened on.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        build(backend),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        limit_concurrency=MOST_AT_ONCE,
    )
    with listener:
        begun(listener.getsockname()[1])
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=MOST_AT_ONCE)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}", "Choose another one: --port"
        ) from None
