"""Where the servers are and which keys open the vault: as given, or embedded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from core.db.version import HEAD, current
from core.embedded import Servers, secret_keys
from core.settings import Settings, get_settings


@dataclass(frozen=True, slots=True)
class Environment:
    """What a process needs to begin. Its URLs may hold passwords: it shows none."""

    database_url: str
    redis_url: str
    secret_keys: tuple[str, ...]
    embedded: bool

    def __repr__(self) -> str:
        return f"Environment(embedded={self.embedded})"


_servers: Servers | None = None


@lru_cache(maxsize=1)
def get_environment() -> Environment:
    """Join the embedded servers, or start them, or take the ones given; embedded ones are migrated.

    Raises:
      ServerUnavailable, SettingsError: What is missing, and what to do.
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
    """Alembic takes half a second to load: only where there is something to do."""
    if current(url) != HEAD:
        from core.db.migrate import migrate

        migrate(url)


def is_embedded(settings: Settings) -> bool:
    """Whether any of the servers is embedded."""
    return settings.database_url is None or settings.redis_url is None


def leave_environment() -> None:
    """Let go of embedded servers; the last one who does stops them."""
    global _servers
    if _servers is not None:
        _servers.release()
        _servers = None
        get_environment.cache_clear()
