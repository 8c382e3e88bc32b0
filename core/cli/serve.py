"""The REST API."""

from __future__ import annotations

from typing import Annotated

import typer

from core.cli import session
from core.cli.output import note

HOST, PORT = "127.0.0.1", 8080

CONNECTIONS = 20
"""To PostgreSQL; a request holds one while it asks, and none while it waits for changes."""


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on. 0.0.0.0: all of this machine's.")] = HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port. 0: any that is free.")] = PORT,
) -> None:
    """Serve the REST API. Put a proxy with TLS before it where others reach it.

    Examples:

    \b
      polling serve
      polling serve --host 0.0.0.0 --port 80
    """
    require_extra()
    with session.backend(connections=CONNECTIONS) as backend:
        from core.db.version import require_schema
        from core.logs import configure
        from core.rest.server import serve as run

        require_schema(backend.database.url)
        configure(backend.settings.log_level)
        note(
            f"The API is at http://{host}:{port}/v1, its description at /openapi.json. Make a token: polling tokens create"
        )
        run(backend, host, port)


def require_extra() -> None:
    """Raises SettingsError, with what to install, if the extra is not."""
    if not installed():
        from core.errors import SettingsError

        raise SettingsError("the API's packages are not installed", "Run: pip install 'integration-polling[serve]'")


def installed() -> bool:
    """Whether the extra `serve` is installed here."""
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in ("authlib", "fastapi", "httpx2", "prometheus_client", "uvicorn"))
