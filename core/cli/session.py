"""Prepare a command: load settings, start or reach the servers, and open the backend."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from core.cli.output import stderr

if TYPE_CHECKING:
    from core.environment import Environment
    from core.service.backend import Backend
    from core.settings import Settings


def settings() -> Settings:
    """Return the settings, and silence loggers unless the log level is `DEBUG`.

    A command prints errors itself, each on one line.
    """
    from core.logs import configure
    from core.settings import get_settings

    current = get_settings()
    configure("DEBUG" if current.log_level == "DEBUG" else "CRITICAL")
    return current


def environment() -> Environment:
    """Return the URLs of the servers. Embedded servers are started first; this takes a second.

    Raises:
      ServerUnavailable: A server does not start or does not answer.
      SettingsError: A setting is missing or invalid.
    """
    from core.environment import get_environment, is_embedded

    with busy("Starting PostgreSQL and Valkey …") if is_embedded(settings()) else nullcontext():
        return get_environment()


def database_url() -> str:
    """Return the URL of PostgreSQL. If it is configured, neither keys nor Redis are needed."""
    url = settings().database_url
    return url.get_secret_value() if url is not None else environment().database_url


@contextmanager
def backend(connections: int = 4) -> Iterator[Backend]:
    """Open the backend, after checking that PostgreSQL answers.

    Args:
      connections: The maximum number of PostgreSQL connections. Default: 4.

    Raises:
      ServerUnavailable: A server does not start or does not answer.
      SettingsError: A setting is missing or invalid.
    """
    servers = environment()
    from core.db.pool import open_connection
    from core.service.backend import open_backend

    open_connection(servers.database_url).close()
    engine = open_backend(settings(), servers, connections=connections)
    try:
        yield engine
    finally:
        engine.close()


def busy(text: str) -> Any:
    """Return a context that shows a spinner with this text, on a terminal only."""
    return stderr().status(text) if stderr().is_terminal else nullcontext()


def registry() -> Any:
    """Return the registry of installed plugins."""
    from core.plugins import get_registry

    settings()
    logging.getLogger("core.plugins").setLevel(logging.CRITICAL)
    return get_registry()
