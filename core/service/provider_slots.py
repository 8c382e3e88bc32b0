"""Bounds on requests that call a provider: their number, and how often one user may check.

A provider may be slow, and a user chooses where some integrations connect to. The bounds leave
threads for other requests, and make it slow to probe a network through the engine.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import ServerUnavailable, TooManyRequests
from core.transport.queues import REDIS_UNAVAILABLE, Queues

MAX_PROVIDER_CALLS = 16
"""Threads of one process that may wait for a provider, of the 40 that serve requests."""

MAX_CALLS_PER_USER = 2
"""Calls to providers that one user's requests may wait for, in one process."""

MAX_CHECKS_PER_HOUR = 60
"""Checks of accounts with the tokens and sessions of one user, in an hour of the clock."""

HOUR = 3_600


class ProviderSlots:
    """The calls to providers of one process, and the checks of each user in the fleet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = 0
        self._by_user: Counter[str] = Counter()
        self._checks: Counter[str] = Counter()

    @contextmanager
    def slot(self, queues: Queues, user: str | None) -> Iterator[None]:
        """Reserve a slot during a call to a provider.

        Args:
          queues: The connection to Redis, which counts the checks of all processes.
          user: The user whose token or session makes the request. None: an operator.

        Raises:
          ServerUnavailable: All slots are in use.
          TooManyRequests: The user has too many calls in progress, or too many checks this hour.
        """
        self._take(user)
        try:
            if user is not None and self._count(queues, user) > MAX_CHECKS_PER_HOUR:
                raise TooManyRequests("checks-exhausted", most=MAX_CHECKS_PER_HOUR)
            yield
        finally:
            self._release(user)

    def _take(self, user: str | None) -> None:
        with self._lock:
            if user is not None and self._by_user[user] >= MAX_CALLS_PER_USER:
                raise TooManyRequests("user-checks-busy")
            if self._total >= MAX_PROVIDER_CALLS:
                raise ServerUnavailable("checks-busy")
            self._total += 1
            if user is not None:
                self._by_user[user] += 1

    def _release(self, user: str | None) -> None:
        with self._lock:
            self._total -= 1
            if user is not None:
                self._by_user[user] -= 1
                self._by_user += Counter()  # removes zero counts

    def _count(self, queues: Queues, user: str) -> int:
        """Count a check, and return the number of this hour; without Redis, of this process."""
        digest = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        key = f"{digest}:{int(time.time()) // HOUR}"
        try:
            with queues.client.pipeline() as pipe:
                pipe.incr(queues.key(f"checks:{key}"))
                pipe.expire(queues.key(f"checks:{key}"), HOUR)
                return int(pipe.execute()[0])
        except REDIS_UNAVAILABLE:
            with self._lock:
                hour = key.rpartition(":")[2]
                for old in [one for one in self._checks if not one.endswith(hour)]:
                    del self._checks[old]
                self._checks[key] += 1
                return self._checks[key]
