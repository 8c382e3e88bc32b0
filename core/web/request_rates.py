"""The rates at which clients may send requests.

A request with a valid token or session counts for its user, and every other request for its
address. So a flood without a token does not stop the people who share the attacker's address, and
an application that serves many users from one address is not one client. Operators have no bound.
Each process counts for itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections import OrderedDict

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Scope

from core.service.authorization import Principal
from core.settings import Settings
from core.web.problems import HttpProblem
from core.web.user_slots import MAX_DOWNLOADS_PER_USER, MAX_REQUESTS_PER_USER, UserSlots

BURST_SECONDS = 10.0
"""A client that has paused may send the requests of this period immediately."""

HEADER_BYTES_PER_REQUEST = 2_048
"""A larger header counts as several requests: 8,000 short fields take as long as 20 requests."""

BODY_BYTES_PER_REQUEST = 32 * 1024
"""A larger body counts as several requests: the server parses it before it knows the user."""

PROXY_REQUESTS_PER_SECOND = 500.0
"""Requests per second without a known user that one proxy may forward for all its clients.

A program on the machine of a proxy can send a new `X-Forwarded-For` with each request.
"""

PROXY_BURST_SECONDS = 2.0

DELAY_SECONDS = 0.5
"""The delay of a response to a request beyond the rate: a client that waits for it sends fewer.

Health probes usually wait for a second.
"""

MAX_DELAYED = 1_000
"""The number of responses that wait. Further ones are sent immediately."""

MAX_CLIENTS = 10_000
"""The number of clients whose rates are known, and of known credentials."""

LOG_SECONDS = 60.0
"""The time between two log lines about clients that exceed their rate."""

TOO_FAST = ("address-too-fast", "user-too-fast", "proxy-too-fast")

_CALLER = "polling.caller"
_SESSION = "polling_session="

log = logging.getLogger(__name__)


class Rate:
    """A rate for each of many clients. Only the thread of the event loop uses it.

    For each client it stores the time at which the requests so far would have arrived at the exact
    rate (GCRA).

    Args:
      per_second: The number of requests per second.
      burst_seconds: A client that has paused may send the requests of this period immediately.
    """

    def __init__(self, per_second: float, burst_seconds: float = BURST_SECONDS) -> None:
        self.per_second = per_second
        self._burst_seconds = burst_seconds
        self._due: OrderedDict[object, float] = OrderedDict()

    def take(self, key: object, cost: float = 1.0) -> bool:
        """Count requests. Return False, and count nothing, if the client exceeds its rate."""
        now = time.monotonic()
        if self._due.get(key, now) > now + self._burst_seconds:
            return False
        self.charge(key, cost)
        return True

    def left(self, key: object) -> tuple[int, int, int]:
        """Return the requests of a burst, those that are left of it, and when it is complete again.

        The last number is in seconds.
        """
        behind = max(0.0, self._due.get(key, 0.0) - time.monotonic())
        left = max(0.0, self._burst_seconds - behind) * self.per_second
        return int(self._burst_seconds * self.per_second), int(left), math.ceil(behind)

    def charge(self, key: object, cost: float) -> None:
        """Count requests, also beyond the rate. A negative cost takes requests back."""
        now = time.monotonic()
        self._due[key] = max(self._due.get(key, now), now) + cost / self.per_second
        self._due.move_to_end(key)
        if len(self._due) > MAX_CLIENTS:
            self._due.popitem(last=False)


class RequestRates:
    """The rates of addresses and users, and the credentials that were valid lately.

    Args:
      settings: The settings with the rates.
    """

    def __init__(self, settings: Settings) -> None:
        self._addresses = Rate(settings.max_requests_per_second_per_address)
        self.users = Rate(settings.max_requests_per_second_per_user)
        self._proxies = Rate(PROXY_REQUESTS_PER_SECOND, PROXY_BURST_SECONDS)
        self._known: OrderedDict[bytes, str | None] = OrderedDict()  # users by credentials
        self._logged_at = -LOG_SECONDS
        self._delayed = 0
        self.requests = UserSlots(MAX_REQUESTS_PER_USER)
        self.downloads = UserSlots(MAX_DOWNLOADS_PER_USER)

    def is_calm(self, address: str, proxy: str | None) -> bool:
        """Count a request for the health of the process. Return False if it exceeds the rate."""
        return self._addresses.take(("health", address)) and (
            proxy is None or self._proxies.take(("health", proxy))
        )

    def admit(self, scope: Scope, address: str, proxy: str | None = None) -> Caller:
        """Count a request for its user if its credentials are known, or else for its address.

        Args:
          scope: The request.
          address: The address of the client, or its network.
          proxy: The address of the proxy that names the client. Default: none.

        Raises:
          HttpProblem: The user, the address or the proxy exceeds its rate.
        """
        credentials, cost = _credentials(Headers(scope=scope)), _cost(scope)
        if credentials is not None and credentials in self._known:
            user = self._known[credentials]
            caller = Caller(self, credentials)
            caller.is_known = True
            self.count_for(caller, user, cost)
        else:
            # Two keys: a flood without credentials does not delay those who sign in.
            key = (address, credentials is not None)
            if not self._addresses.take(key, cost):
                self._report("address", address)
                raise HttpProblem("address-too-fast")
            if proxy is not None and not self._proxies.take(proxy, cost):
                self._report("proxy", proxy)
                raise HttpProblem("proxy-too-fast")
            caller = Caller(self, credentials)
            caller.account = (self._addresses, key)
            caller.cost = cost
        scope[_CALLER] = caller
        return caller

    def count_for(self, caller: Caller, user: str | None, cost: float) -> None:
        """Count a request for a user. Requests of operators do not count.

        Raises:
          HttpProblem: The user exceeds the rate.
        """
        caller.account = None
        if user is None:
            return
        if not self.users.take(user, cost):
            self._report("user", user)
            raise HttpProblem("user-too-fast")
        caller.account = (self.users, user)

    async def delay(self) -> None:
        """Wait before the response to a request beyond the rate."""
        if self._delayed < MAX_DELAYED:
            self._delayed += 1
            try:
                await asyncio.sleep(DELAY_SECONDS)
            finally:
                self._delayed -= 1

    def remember(self, credentials: bytes, user: str | None) -> None:
        """Remember valid credentials."""
        self._known[credentials] = user
        self._known.move_to_end(credentials)
        if len(self._known) > MAX_CLIENTS:
            self._known.popitem(last=False)

    def forget(self, credentials: bytes) -> None:
        """Forget credentials that are not valid any more."""
        self._known.pop(credentials, None)

    def _report(self, what: str, client: str) -> None:
        if time.monotonic() - self._logged_at >= LOG_SECONDS:
            self._logged_at = time.monotonic()
            log.warning("refusing requests: the %s %r exceeds its rate", what, client)


class Caller:
    """The client of one request.

    Args:
      rates: The rates of all clients.
      credentials: A key for the credentials of the request, valid or not.

    Attributes:
      account: The rate and the key for which the request counts; None for an operator.
      cost: The number of requests that this one counts as, so far.
      is_known: True if its user is known.
    """

    def __init__(self, rates: RequestRates, credentials: bytes | None) -> None:
        self.account: tuple[Rate, object] | None = None
        self.cost = 0.0
        self.is_known = False
        self._rates = rates
        self._credentials = credentials
        self._slot: tuple[UserSlots, str] | None = None

    def read(self, size: int) -> None:
        """Count bytes of the body."""
        cost = size / BODY_BYTES_PER_REQUEST
        self.cost += cost
        if self.account is not None:
            rate, key = self.account
            rate.charge(key, cost)

    async def authenticated(self, principal: Principal) -> bool:
        """Count the request for its user instead of its address, and take a slot of the user.

        Returns:
          True if the request had to wait for the slot: its credentials may have ended since.

        Raises:
          HttpProblem: The user exceeds the rate, or has too many requests in progress.
        """
        self._count(principal)
        if principal.user_id is not None and self._slot is None:
            waited = await self._rates.requests.take(principal.user_id)
            self._slot = self._rates.requests, principal.user_id
            return waited
        return False

    def limits(self) -> list[tuple[bytes, bytes]]:
        """Return the headers with the rate of the user, as the IETF's drafts name them.

        https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-07
        """
        if self.account is None or self.account[0] is not self._rates.users:
            return []
        rate, key = self.account
        names = (b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset")
        return [(name, b"%d" % value) for name, value in zip(names, rate.left(key), strict=True)]

    def release(self) -> None:
        """Release the slot of the user: the request has ended, or waits."""
        if self._slot is not None:
            slots, user = self._slot
            self._slot = None
            slots.release(user)

    async def downloads(self) -> None:
        """Exchange the slot of the user for one of those for long responses."""
        if self._slot is not None and self._slot[0] is self._rates.requests:
            user = self._slot[1]
            await self._rates.downloads.take(user, None)
            self.release()
            self._slot = self._rates.downloads, user

    def _count(self, principal: Principal) -> None:
        if self.is_known or self._credentials is None:
            return
        self.is_known = True
        self._rates.remember(self._credentials, principal.user_id)
        if self.account is not None:
            rate, key = self.account
            rate.charge(key, -self.cost)
        self._rates.count_for(self, principal.user_id, self.cost)

    def rejected(self) -> None:
        """Forget the credentials of the request, and release its slot."""
        self.release()
        if self._credentials is not None:
            self._rates.forget(self._credentials)


def caller_of(request: HTTPConnection) -> Caller | None:
    """Return the client of a request; None without `core.web.gate`."""
    caller: Caller | None = request.scope.get(_CALLER)
    return caller


def _credentials(headers: Headers) -> bytes | None:
    """Return a key for the token or the cookie of a request; None if it has neither."""
    presented = headers.get("authorization")
    if presented is None:
        cookie = headers.get("cookie", "")
        presented = cookie if _SESSION in cookie else None
    return None if presented is None else hashlib.sha256(presented.encode("latin-1")).digest()


def _cost(scope: Scope) -> float:
    """Return the number of requests that a request counts as, by the size of its header."""
    size = len(scope["raw_path"]) + len(scope["query_string"])
    size += sum(len(name) + len(value) for name, value in scope["headers"])
    return max(1.0, size / HEADER_BYTES_PER_REQUEST)
