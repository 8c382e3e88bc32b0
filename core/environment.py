"""The servers and keys of this process: configured or embedded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from core.db.version import HEAD, current, refuse_newer
from core.embedded import Servers, secret_keys
from core.settings import Settings, get_settings


@dataclass(frozen=True, slots=True)
class Environment:
    """Servers and keys. The URLs may contain passwords, which `repr()` does not show."""

    database_url: str
    redis_url: str
    secret_keys: tuple[str, ...]
    embedded: bool

    def __repr__(self) -> str:
        return f"Environment(embedded={self.embedded})"


_servers: Servers | None = None


@lru_cache(maxsize=1)
def get_environment() -> Environment:
    """Return the configured servers, or start or join embedded ones.

    An embedded database is migrated.

    Raises:
      ServerUnavailable: An embedded server does not start.
      SettingsError: A setting is missing or invalid.
    """
    global _servers
    settings = get_settings()
    keys = secret_keys(settings)
    _servers = Servers(settings)
    urls = _servers.acquire()
    if settings.database_url is None:
        _migrate(urls.database_url)
    return Environment(urls.database_url, urls.redis_url, keys, is_embedded(settings))


def _migrate(url: str) -> None:
    """Migrate the database if needed. Loading Alembic takes half a second."""
    revision = current(url)
    refuse_newer(revision)
    if revision != HEAD:
        from core.db.migrate import migrate

        migrate(url)


def is_embedded(settings: Settings) -> bool:
    """Return true if PostgreSQL or Redis is embedded."""
    return settings.database_url is None or settings.redis_url is None


def leave_environment() -> None:
    """Release embedded servers. The last process to release them stops them."""
    global _servers
    if _servers is not None:
        _servers.release()
        _servers = None
        get_environment.cache_clear()
