"""The resources that service operations use."""

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
    """The resources of a process. Connections are opened on first use."""

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
        """Notify the dispatcher of new work.

        Return False if Redis is unavailable; the dispatcher then polls within a second.
        """
        try:
            self.queues.wake()
        except REDIS_UNAVAILABLE:
            return False
        return True

    def close(self) -> None:
        """Close all connections, and stop the egress checks."""
        self.egress.close()
        self.database.close()
        self.queues.close()


def open_backend(settings: Settings, environment: Environment, *, connections: int = 4) -> Backend:
    """Open the backend of an environment.

    Parameters:
      connections: Maximum number of connections to PostgreSQL.

    Raises:
      SettingsError: A secret key is invalid.
    """
    return Backend(
        settings,
        Database(environment.database_url, size=connections),
        Queues(environment.redis_url, settings.redis_namespace),
        Vault(environment.secret_keys),
        get_registry(),
    )
