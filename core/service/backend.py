"""The resources that service operations use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from core.accounts.redaction import remember_operator
from core.accounts.vault import Vault
from core.content.blobs import Blobs
from core.db.pool import Conn, Database
from core.egress import Egress
from core.environment import Environment
from core.ledger import limit_overrides
from core.limits.budgets import Budgets
from core.plugins import Registry, get_registry
from core.service.count_cache import CountCache
from core.service.provider_slots import ProviderSlots
from core.service.query_timeout import QuerySlots
from core.service.single_flight import SingleFlight
from core.service.slots import Slots
from core.settings import Settings
from core.transport.queues import REDIS_UNAVAILABLE, Queues

CheckStatus = Literal["ok", "warn", "fail"]
"""The status of a part. `fail`: it does not work; `warn`: it works, but needs attention."""

MAX_PREVIEWS = 2
"""Content previews that one process renders concurrently.

A mail that was crafted to be slow occupies the interpreter for seconds.
"""

MAX_PREVIEWS_PER_USER = 1
"""Content previews of one user that one process renders concurrently."""

MAX_WAITING_PREVIEWS = 8
"""Previews that wait for a slot. Each of them occupies a thread."""

PREVIEW_TIMEOUT_SECONDS = 10.0
"""Seconds that a preview waits for a slot."""


def _preview_slots() -> Slots:
    return Slots(MAX_PREVIEWS, MAX_PREVIEWS_PER_USER, MAX_WAITING_PREVIEWS, PREVIEW_TIMEOUT_SECONDS)


@dataclass(frozen=True, slots=True)
class Backend:
    """The resources of a process. It opens connections on first use.

    Attributes:
      query_slots: Bounds concurrent slow queries.
      provider_slots: Bounds concurrent requests that call a provider.
      preview_slots: Bounds concurrent previews of content.
      health_flight: The check of all parts that is in progress.
      counts: Counts of many rows.
    """

    settings: Settings
    database: Database
    queues: Queues
    vault: Vault
    registry: Registry
    egress: Egress = field(default_factory=Egress)
    query_slots: QuerySlots = field(default_factory=QuerySlots)
    provider_slots: ProviderSlots = field(default_factory=ProviderSlots)
    preview_slots: Slots = field(default_factory=_preview_slots)
    health_flight: SingleFlight[str, CheckStatus] = field(default_factory=SingleFlight)
    counts: CountCache = field(default_factory=CountCache)

    @property
    def blobs(self) -> Blobs:
        """The store of large content."""
        return Blobs(self.database, self.settings.blob_location, self.settings.home / "spool")

    def limits(self, conn: Conn) -> limit_overrides.Overrides:
        """Return the operator's figures of limits."""
        return limit_overrides.effective(conn, self.settings.limits)

    @property
    def budgets(self) -> Budgets:
        """The budgets of rate limits, to read them: only workers and the leader write."""
        return Budgets(
            self.queues.client, self.queues.key, lambda: False, lambda _script, _key: None
        )

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

    Args:
      settings: The settings.
      environment: The servers and the keys.
      connections: The maximum number of connections to PostgreSQL.

    Raises:
      SettingsError: A secret key is invalid.
    """
    registry = get_registry()
    remember_operator(environment, registry)
    database = Database(environment.database_url, size=connections)
    queues = Queues(environment.redis_url, settings.redis_namespace)
    database.on_disk_full = queues.note_disk_full
    return Backend(
        settings,
        database,
        queues,
        Vault(environment.secret_keys),
        registry,
    )
