"""The checks of `polling doctor`, as data.

A failed check does not stop the checks that can still run: without a server, those of settings,
plugins and the blob store remain.
"""

from __future__ import annotations

from collections.abc import Iterator

from core.db.pool import DATABASE_UNAVAILABLE, open_connection
from core.environment import Environment
from core.errors import Advice, PollingError
from core.plugins import Registry
from core.service.backend import CheckStatus
from core.service.fleet.doctor import accounts, fleet, keys, local, servers
from core.service.fleet.doctor.check import Check
from core.settings import Settings

__all__ = ["Check", "CheckStatus", "examine"]


def examine(
    settings: Settings, environment: Environment | PollingError, registry: Registry
) -> Iterator[Check]:
    """Run every check, and yield each result as soon as it is known.

    Args:
      settings: The settings.
      environment: The servers and keys, or the error that explains why they are not available.
      registry: The loaded plugins.
    """
    yield from local.examine(settings, environment, registry)
    urls = servers.urls(settings, environment)
    if urls is None:
        return
    yield servers.redis(urls[1], settings.redis_namespace)
    postgres = servers.postgres(urls[0])
    yield postgres
    if postgres.status == "fail":
        return
    schema = servers.schema(urls[0])
    yield schema
    if schema.status != "fail":
        yield from _database(settings, environment, urls, registry)


def _database(
    settings: Settings,
    environment: Environment | PollingError,
    urls: tuple[str, str],
    registry: Registry,
) -> Iterator[Check]:
    try:
        with open_connection(urls[0]) as conn:
            if isinstance(environment, Environment):
                yield from keys.examine(conn, environment.secret_keys)
            yield servers.clock(conn)
            if other := servers.sharing(conn, urls[1], settings.redis_namespace):
                yield other
            if full := servers.disk(urls[1], settings.redis_namespace):
                yield full
            yield from fleet.examine(conn, settings, registry)
            yield from accounts.examine(conn, settings)
    except DATABASE_UNAVAILABLE as error:
        message = f"the connection was lost during the checks: {error}"
        yield Check("PostgreSQL", "fail", message, Advice("try-again"))
