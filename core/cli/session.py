"""What a command needs before it can begin: settings, servers that answer, and the backend."""

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
    """Return the settings; silence our loggers unless the settings ask for `DEBUG`.

    The command prints every error in one line.
    """
    from core.logs import configure
    from core.settings import get_settings

    current = get_settings()
    configure("DEBUG" if current.log_level == "DEBUG" else "CRITICAL")
    return current


def environment() -> Environment:
    """Return the URLs of the servers; start embedded servers, which takes a second.

    Raises:
      ServerUnavailable, SettingsError: A server or a setting is missing; the error names it.
    """
    from core.environment import get_environment, is_embedded

    with busy("Starting PostgreSQL and Valkey …") if is_embedded(settings()) else nullcontext():
        return get_environment()


def database_url() -> str:
    """Where PostgreSQL is; neither keys nor Redis are needed to know that where it is given."""
    url = settings().database_url
    return url.get_secret_value() if url is not None else environment().database_url


@contextmanager
def backend(connections: int = 4) -> Iterator[Backend]:
    """The backend, with a PostgreSQL that answers.

    Parameters:
      connections: To PostgreSQL, at most.

    Raises:
      ServerUnavailable, SettingsError: What is missing, and what to do.
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
    """A spinner while something takes its time; on a terminal only."""
    return stderr().status(text) if stderr().is_terminal else nullcontext()


def registry() -> Any:
    """The plugins installed here."""
    from core.plugins import get_registry

    settings()
    logging.getLogger("core.plugins").setLevel(logging.CRITICAL)
    return get_registry()
