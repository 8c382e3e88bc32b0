"""The command serve: the dashboard and the REST API."""

from __future__ import annotations

import http.client
import socket
from contextlib import suppress
from typing import Annotated

import typer

from core.cli import session
from core.cli.output import note
from core.errors import SettingsError
from core.public_addresses import is_loopback_name

HOST, PORT = "127.0.0.1", 8080

CONNECTIONS = 24
"""The maximum number of PostgreSQL connections.

A request uses one while it queries, and none while it waits for changes.
"""


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on. 0.0.0.0 listens on all interfaces.")
    ] = HOST,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on. 0 chooses a free port.")
    ] = PORT,
    fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve the dashboard and the REST API.

    Without --host, only this machine can connect. The server speaks HTTP without TLS, so it would
    send tokens and content over the network in clear text. For other machines, run a proxy with TLS
    in front of it: docs/how-to/deploy.md has examples for Caddy and nginx.

    \b
    Examples:
      polling serve
      polling serve --host 0.0.0.0 --port 80
    """
    require_extra()
    with session.backend(connections=CONNECTIONS) as backend:
        from core import observability
        from core.dashboard.app import Site
        from core.db.version import require_schema
        from core.logs import configure
        from core.rest.app import build
        from core.service.fleet import presence
        from core.web.server import serve as run
        from core.web.tracing import traced

        require_schema(backend.database.url)
        configure(backend.settings.log_level, backend.settings.log_format)
        observability.start("api")
        rest = build(backend)

        def announce(at: int) -> None:
            note(address(host, at))
            note(reachable(host))
            note("Press Ctrl-C to stop.")
            note("To sign in, create a token: polling tokens create --admin")

        try:
            site = traced(Site(rest))
            with presence.registered(backend):
                run(
                    site,
                    backend.settings,
                    lambda: rest.state.feed_watcher,
                    host,
                    port,
                    announce,
                    fd,
                )
        finally:
            observability.stop()


def address(host: str, port: int) -> str:
    """Return the line that names the addresses of the dashboard and the API."""
    url_host = f"[{host}]" if ":" in host else host
    at = f"http://{url_host}:{port}"
    return f"The dashboard is at {at}, the API at {at}/v1 (OpenAPI document: /openapi.json)."


def reachable(host: str) -> str:
    """Return the line that says who can connect, and why."""
    if is_loopback_name(host):
        return (
            "Only this machine can connect, because the server speaks HTTP without TLS. Put a proxy"
            " with TLS in front of it, or run `polling serve --host ADDRESS`."
        )
    return (
        "Other machines can connect, and their tokens cross the network without TLS. Let only a"
        " proxy with TLS reach this port."
    )


def listening(requested: int | None) -> socket.socket:
    """Listen on the requested port, or on the default port, or on any free port.

    Nobody else can take the port before the API runs, or while it restarts.

    Raises:
      SettingsError: The requested port is taken.
    """
    if requested is None:
        with suppress(OSError):
            return socket.create_server((HOST, PORT))
    port = requested or 0
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        detail = error.strerror or str(error)
        raise SettingsError("address-in-use", host=HOST, port=port, detail=detail) from None


def is_answering(port: int) -> bool:
    """Return true if an API answers at this port."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def require_extra() -> None:
    """Raise SettingsError with installation instructions unless the extra is installed."""
    if not installed():
        from core.errors import SettingsError

        raise SettingsError("serve-packages-missing")


def installed() -> bool:
    """Return true if the extra `serve` is installed."""
    from importlib.util import find_spec

    return all(
        find_spec(name) is not None
        for name in (
            "authlib",
            "fastapi",
            "jinja2",
            "nh3",
            "prometheus_client",
            "uvicorn",
        )
    )
