"""A pool of integration instances, which are reused for the next task of their account."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from core.egress import Egress
from core.integration.base import BaseIntegration
from core.worker.accounts import LoadedAccount

IDLE_SECONDS = 5.0
"""Seconds that an idle instance is kept; it may have an open connection to the provider."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Instance:
    """An initialized integration of one account."""

    integration: BaseIntegration[Any, Any]
    account_id: str
    version: tuple[int, int]
    public_only: bool
    since: float = 0.0


class InstancePool:
    """Idle instances by account. Each instance runs one task at a time.

    Args:
      egress: Limits the addresses that an instance may connect to in its `close`.
    """

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._lock = threading.Lock()
        self._idle: dict[str, list[Instance]] = defaultdict(list)

    def take(self, loaded: LoadedAccount) -> Instance:
        """Return an idle instance of this account and version, or a new one.

        Raises:
          Exception: The plugin's `initialize` raised it.
        """
        id, version = (
            str(loaded.account.id),
            (loaded.account.version, loaded.account.credentials_version),
        )
        with self._lock:
            idle = self._idle.pop(id, [])
            fitting = [instance for instance in idle if instance.version == version]
            instance = fitting.pop() if fitting else None
            if fitting:
                self._idle[id] = fitting
        for outdated in idle:
            if outdated.version != version:
                self.discard(outdated)
        if instance is not None:
            return instance
        integration = loaded.integration(loaded.config, loaded.credentials)
        instance = Instance(integration, id, version, loaded.account.public_hosts_only)
        try:
            integration.initialize()
        except BaseException:
            self.discard(instance)
            raise
        return instance

    def release(self, instance: Instance) -> None:
        """Return an instance to the pool, for the next task of its account."""
        instance.since = time.monotonic()
        with self._lock:
            self._idle[instance.account_id].append(instance)

    def discard(self, instance: Instance) -> None:
        """Close an instance. If that fails, log the class of the error only."""
        try:
            with self._egress.for_account(public_only=instance.public_only):
                instance.integration.close()
        except BaseException as error:  # noqa: BLE001  plugin code: even sys.exit() ends nothing but the instance
            log.warning(
                "closing an instance of %s failed: %s",
                instance.integration.manifest.domain,
                type(error).__name__,
            )

    def close_idle(self, older_than: float = IDLE_SECONDS) -> None:
        """Close instances that have been idle for more seconds than `older_than`."""
        limit = time.monotonic() - older_than
        with self._lock:
            old = [
                instance
                for idle in self._idle.values()
                for instance in idle
                if instance.since <= limit
            ]
            for id in list(self._idle):
                self._idle[id] = [instance for instance in self._idle[id] if instance.since > limit]
                if not self._idle[id]:
                    del self._idle[id]
        for instance in old:
            self.discard(instance)
