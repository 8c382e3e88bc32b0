"""What the operations of this layer work with."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.accounts.vault import Vault
from core.content.blobs import Blobs
from core.db.pool import Database
from core.egress import Egress
from core.environment import Environment
from core.plugins import Registry, get_registry
from core.settings import Settings
from core.transport.queues import REDIS_UNAVAILABLE, Queues


@dataclass(frozen=True, slots=True)
class Backend:
    """One for each process; nothing is connected before it is used."""

    settings: Settings
    database: Database
    queues: Queues
    vault: Vault
    registry: Registry
    egress: Egress = field(default_factory=Egress)

    @property
    def blobs(self) -> Blobs:
        """The store of large content."""
        return Blobs(self.database, self.settings.blob_location, self.settings.home / "spool")

    def wake(self) -> bool:
        """Tell the dispatcher that there is work.

        False if Redis is away: then it looks by itself, a second later.
        """
        try:
            self.queues.wake()
        except REDIS_UNAVAILABLE:
            return False
        return True

    def close(self) -> None:
        """Close all connections, and stop checking those of others."""
        self.egress.close()
        self.database.close()
        self.queues.close()


def open_backend(settings: Settings, environment: Environment, *, connections: int = 4) -> Backend:
    """The backend of this environment.

    Parameters:
      connections: To PostgreSQL, at most.

    Raises:
      SettingsError: A secret key is none.
    """
    return Backend(
        settings,
        Database(environment.database_url, size=connections),
        Queues(environment.redis_url, settings.redis_namespace),
        Vault(environment.secret_keys),
        get_registry(),
    )
