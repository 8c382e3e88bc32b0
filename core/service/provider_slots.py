"""Bounds on requests that call a provider: their number, and how often one user may check.

A provider may be slow, and a user chooses where some integrations connect to. The bounds leave
threads for other requests, and make it slow to probe a network through the engine.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from core.errors import ServerUnavailable, TooManyRequests
from core.transport.queues import REDIS_UNAVAILABLE, Queues

MAX_PROVIDER_CALLS = 16
"""Threads of one process that may wait for a provider, of the 40 that serve requests."""

MAX_CALLS_PER_USER = 2
"""Calls to providers that one user may have in one process.

A call counts until its threads have ended, also after its request was answered.
"""

MAX_CHECKS_PER_HOUR = 60
"""Checks of accounts with the tokens and sessions of one user, in an hour of the clock."""

MAX_SIGN_INS_PER_HOUR = 60
"""Sign-ins at providers that one user may start in an hour of the clock. Each is stored."""

MAX_RUNS_PER_HOUR = 600
"""Requests that may start a run with the tokens and sessions of one user, in an hour.

They are a sync, a resync, a reread, a resumption, an accepted deletion, and the retry of tasks of
one account. Each run is stored for `POLLING_RETENTION_DAYS`.
"""

HOUR = 3_600


class Call:
    """A call to a provider: its request, and the threads that continue after the response.

    Args:
      end: Called when the last of them has ended.
    """

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._lock = threading.Lock()
        self._holders = 1

    def hold(self) -> None:
        """Count a further thread of the call."""
        with self._lock:
            self._holders += 1

    def leave(self) -> None:
        """End the request or a thread of the call."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
        self._end()


_current: ContextVar[Call | None] = ContextVar("provider_call", default=None)


def current_call() -> Call | None:
    """Return the call of this request. None outside of `ProviderSlots.slot`."""
    return _current.get()


class ProviderSlots:
    """The calls to providers of one process, and the events of each user in this hour."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = 0
        self._by_user: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

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
        call = Call(lambda: self._release_user(user))
        token = _current.set(call)
        try:
            if user is not None and self._count(queues, "checks", user) > MAX_CHECKS_PER_HOUR:
                raise TooManyRequests("checks-exhausted", most=MAX_CHECKS_PER_HOUR)
            yield
        finally:
            _current.reset(token)
            with self._lock:
                self._total -= 1
            call.leave()

    def count_sign_in(self, queues: Queues, user: str) -> None:
        """Count the start of a sign-in at a provider.

        Raises:
          TooManyRequests: The user has started too many in this hour.
        """
        if self._count(queues, "sign-ins", user) > MAX_SIGN_INS_PER_HOUR:
            raise TooManyRequests("sign-ins-exhausted", most=MAX_SIGN_INS_PER_HOUR)

    def count_run(self, queues: Queues, user: str) -> None:
        """Count a request for a run.

        Raises:
          TooManyRequests: The user has requested too many in this hour.
        """
        if self._count(queues, "runs", user) > MAX_RUNS_PER_HOUR:
            raise TooManyRequests("runs-exhausted", most=MAX_RUNS_PER_HOUR)

    def _take(self, user: str | None) -> None:
        with self._lock:
            if user is not None and self._by_user[user] >= MAX_CALLS_PER_USER:
                raise TooManyRequests("user-checks-busy")
            if self._total >= MAX_PROVIDER_CALLS:
                raise ServerUnavailable("checks-busy")
            self._total += 1
            if user is not None:
                self._by_user[user] += 1

    def _release_user(self, user: str | None) -> None:
        if user is None:
            return
        with self._lock:
            self._by_user[user] -= 1
            self._by_user += Counter()  # removes zero counts

    def _count(self, queues: Queues, what: str, user: str) -> int:
        """Count an event, and return the number of this hour; without Redis, of this process."""
        digest = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        key = f"{what}:{digest}:{int(time.time()) // HOUR}"
        try:
            with queues.client.pipeline() as pipe:
                pipe.incr(queues.key(key))
                pipe.expire(queues.key(key), HOUR)
                return int(pipe.execute()[0])
        except REDIS_UNAVAILABLE:
            with self._lock:
                hour = key.rpartition(":")[2]
                for old in [counted for counted in self._counts if not counted.endswith(hour)]:
                    del self._counts[old]
                self._counts[key] += 1
                return self._counts[key]
