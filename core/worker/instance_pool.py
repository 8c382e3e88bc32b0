"""A pool of integration instances, which are reused for the next task of their account."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from core.backoff import growing_pause
from core.egress import Egress
from core.http_session import HttpSession
from core.integration.base import BaseIntegration
from core.results.signals import NoFreeInstance
from core.worker.accounts import LoadedAccount
from core.worker.slots import AccountSlots

IDLE_SECONDS = BaseIntegration.idle_seconds
"""Seconds that an idle instance is kept by default; it may have an open connection."""

REFUSED_SECONDS = 1.0
RETRY_SECONDS = 0.02
MAX_RETRY_SECONDS = 0.25
"""The delays of a task that found no free place, while one process finds none again and again.

The first time within `REFUSED_SECONDS`, the task returns immediately: the next process may have an
instance. The second time it waits for `RETRY_SECONDS`, and then twice as long each time, up to
`MAX_RETRY_SECONDS`.
"""

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Instance:
    """An initialized integration of one account."""

    integration: BaseIntegration[Any, Any]
    account_id: str
    version: tuple[int, int]
    public_only: bool
    since: float = 0.0
    slot: int | None = None
    _http: HttpSession | None = None

    @property
    def http(self) -> HttpSession:
        """The instance's HTTP session, opened on first use."""
        if self._http is None:
            self._http = HttpSession()
        return self._http

    def close(self) -> None:
        """Close the integration and the HTTP session."""
        try:
            self.integration.close()
        finally:
            if self._http is not None:
                self._http.close()


class InstancePool:
    """Idle instances by account. Each instance runs one task at a time.

    Args:
      egress: Limits the addresses that an instance may connect to in its `close`.
      slots: The places of the limits that count instances. Default: these limits are not counted.
    """

    def __init__(self, egress: Egress, slots: AccountSlots | None = None) -> None:
        self._egress = egress
        self._slots = slots
        self._refused: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._idle: dict[str, list[Instance]] = defaultdict(list)

    def take(self, loaded: LoadedAccount) -> Instance:
        """Return an idle instance of this account and version, or a new one.

        Raises:
          NoFreeInstance: Other processes have all instances that a limit allows.
          ServerUnavailable: PostgreSQL does not answer.
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
        slot = self._slot(loaded)
        integration = loaded.integration(loaded.config, loaded.credentials)
        instance = Instance(integration, id, version, loaded.account.public_hosts_only, slot=slot)
        try:
            integration.initialize()
        except BaseException:
            self.discard(instance)
            raise
        return instance

    def _slot(self, loaded: LoadedAccount) -> int | None:
        """Take a place for a new instance, if a limit of its account counts instances."""
        limit = loaded.instance_limit
        if limit is None or self._slots is None:
            return None
        key = loaded.key(limit)
        slot = self._slots.take(key, loaded.places, limit.tasks)
        if slot is None:
            raise NoFreeInstance(f"other processes have all {limit.name}", self._delay(key))
        return slot

    def _delay(self, key: str) -> float:
        """Return the seconds after which a task that found no free place is tried again."""
        now = time.monotonic()
        recent = {
            each: (at, times)
            for each, (at, times) in self._refused.items()
            if now - at < REFUSED_SECONDS
        }
        _, times = recent.get(key, (now, 0))
        self._refused = recent | {key: (now, min(times + 1, 10))}
        return growing_pause(RETRY_SECONDS, MAX_RETRY_SECONDS, times - 1) if times else 0.0

    def count(self, loaded: LoadedAccount) -> int:
        """Return the number of instances that the fleet has; 0 if no limit counts them."""
        limit = loaded.instance_limit
        if limit is None or self._slots is None:
            return 0
        return self._slots.count(loaded.key(limit), loaded.places)

    def release(self, instance: Instance) -> None:
        """Return an instance to the pool, for the next task of its account."""
        instance.since = time.monotonic()
        with self._lock:
            self._idle[instance.account_id].append(instance)

    def discard(self, instance: Instance) -> None:
        """Close an instance. If that fails, log the class of the error only."""
        try:
            with self._egress.for_account(public_only=instance.public_only):
                instance.close()
        except BaseException as error:  # noqa: BLE001  plugin code: even sys.exit() ends nothing but the instance
            log.warning(
                "closing an instance of %s failed: %s",
                instance.integration.manifest.domain,
                type(error).__name__,
            )
        finally:
            if instance.slot is not None and self._slots is not None:
                self._slots.release(instance.slot)

    def close_idle(self, older_than: float | None = None) -> None:
        """Close instances that have been idle for too long.

        Args:
          older_than: The longest idle time in seconds. Default: each instance's `idle_seconds`.
        """
        now = time.monotonic()

        def is_old(instance: Instance) -> bool:
            idle = instance.integration.idle_seconds if older_than is None else older_than
            return now - instance.since >= idle

        with self._lock:
            old = [
                instance for idle in self._idle.values() for instance in idle if is_old(instance)
            ]
            for id in {instance.account_id for instance in old}:
                self._idle[id] = [each for each in self._idle[id] if not is_old(each)]
                if not self._idle[id]:
                    del self._idle[id]
        for instance in old:
            self.discard(instance)
