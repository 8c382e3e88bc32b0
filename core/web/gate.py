"""The entrance of the server: the hosts that it serves, and the bounds of each client.

`/healthz` is always answered. It needs neither a thread nor the database, so it answers as long as
the process does. A client that sends it too often only loses its connection.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.ledger.audit import Actor, set_actor
from core.public_addresses import is_loopback_name
from core.settings import Settings
from core.states import Channel
from core.web.connections import BODY_SECONDS, network_of
from core.web.problems import HttpProblem, headers_of, problem
from core.web.request_rates import TOO_FAST, Caller, RequestRates

HEALTH = "/healthz"

CLOSE = (b"connection", b"close")

MAX_REQUESTS = 1_000
"""The maximum number of requests with a complete body that are in progress."""

MAX_REQUESTS_PER_TOKEN = 100
"""The maximum number of requests in progress with one token."""

MAX_BUFFERED_BYTES = 64 * 1024 * 1024
"""The maximum size of all request bodies in memory together. Small ones pass nevertheless."""

MAX_BUFFERED_BYTES_PER_ADDRESS = 16 * 1024 * 1024
"""The maximum size of the request bodies in memory from one address."""

SMALL_BODY_BYTES = 64 * 1024
"""The size up to which a body counts as small."""


class Proxies:
    """The proxies whose header `X-Forwarded-For` names the client.

    Args:
      networks: Addresses and networks of proxies.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = tuple(ip_network(network) for network in networks)
        self._is_one = lru_cache(maxsize=10_000)(self._find)

    def __contains__(self, address: str) -> bool:
        return self._is_one(address)

    def _find(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def client(self, scope: Scope) -> str | None:
        """Return the address of the client; None if a proxy does not name it.

        The header grows at its end. Therefore only the last address that is not a proxy counts:
        a client may send a header of its own.
        """
        peer = (scope["client"] or ("",))[0]
        if peer not in self:
            return peer or None
        forwarded = ",".join(Headers(scope=scope).getlist("x-forwarded-for"))
        addresses = [part.strip() for part in forwarded.split(",") if part.strip()]
        client = None
        while addresses and (client is None or client in self):
            client = _address(addresses.pop())
            if client is None:
                return None
        return client


def _address(name: str) -> str | None:
    """Return the address in a part of `X-Forwarded-For`, which may have a port.

    A client has many ports, and must not count as many clients. None: it is not an address.
    """
    host = name
    if name.startswith("["):
        host = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        host = name.partition(":")[0]
    try:
        return str(ip_address(host))
    except ValueError:
        return None


class Gate:
    """An ASGI application that passes requests on to another one, within bounds.

    Args:
      app: The application.
      settings: The settings with the hosts, the proxies and the bounds.
      listening_on: The address that the server listens on, which is served too.
    """

    def __init__(self, app: ASGIApp, settings: Settings, listening_on: str = "") -> None:
        self.app = app
        self.proxies = Proxies(settings.trusted_proxies)
        self._per_address = settings.max_connections_per_address
        self._hosts = served_hosts(settings, listening_on)
        self._rates = RequestRates(settings)
        self._running = 0
        self._by_client: Counter[str] = Counter()
        self._by_token: Counter[bytes] = Counter()
        self._bytes: Counter[str | None] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        client = self.proxies.client(scope)
        # A trusted proxy that names no client is the client, as far as rates are concerned.
        peer = (scope["client"] or ("",))[0]
        address = network_of(client or peer)
        proxy = peer if client not in (None, peer) else None
        if scope["path"] == HEALTH:
            if self._rates.is_calm(address, proxy):
                await self.app(scope, receive, send)
            else:
                await self._rates.delay()
                await _answer_health(send)
            return
        if client is not None:
            scope["client"] = (client, 0)
        set_actor(Actor(Channel.BROWSER, address=client or peer or None))
        key, token = client and network_of(client), _token(headers)
        try:
            caller = self._rates.admit(scope, address, proxy)
            self._check(headers, key, token)
        except HttpProblem as refused:
            if refused.code in TOO_FAST:
                await self._rates.delay()
            await _refuse(refused, headers)(scope, receive, _closing_when_busy(send))
            return
        with _counted(self._by_client, key), _counted(self._by_token, token):
            request = _Request(self, key, headers, caller)
            await request.run(scope, receive, _closing_when_busy(send))

    def _check(self, headers: Headers, client: str | None, token: bytes | None) -> None:
        """Raise HttpProblem if the request is for another host, or too many are in progress."""
        if not self._serves(_host(headers.get("host", ""))):
            raise HttpProblem("host-not-served")
        if client is not None and self._by_client[client] >= self._per_address:
            raise HttpProblem("address-busy")
        if token is not None and self._by_token[token] >= MAX_REQUESTS_PER_TOKEN:
            raise HttpProblem("token-busy")
        if self._running >= MAX_REQUESTS:
            raise HttpProblem("server-busy")

    def _serves(self, host: str) -> bool:
        return "*" in self._hosts or host in self._hosts or is_loopback_name(host)


class _Request:
    """One request on its way through the gate."""

    def __init__(self, gate: Gate, client: str | None, headers: Headers, caller: Caller) -> None:
        self._gate = gate
        self._caller = caller
        self._client = client
        self._size = 0
        self._complete = False
        self._begun = False
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            self._end_of_body()

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bounded_receive() -> Message:
            return await self._receive(receive)

        async def noted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._caller.limits()]
            if _has_events(message):
                self._caller.release()  # its number has a bound of its own
            elif self._begun and message.get("more_body", False):
                await self._caller.downloads()
            self._begun = True
            await send(message)

        try:
            await self._gate.app(scope, bounded_receive, noted_send)
        finally:
            self._caller.release()
            self._gate._running -= self._complete
            self._gate._bytes[self._client] -= self._size
            self._gate._bytes += Counter()  # removes zero counts

    async def _receive(self, receive: Receive) -> Message:
        if self._complete:
            return await receive()  # waits until the client disconnects
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await receive()
        except TimeoutError:
            return self._give_up(408)
        if message["type"] != "http.request":
            return message
        self._buffer(len(message.get("body", b"")))
        if not message.get("more_body", False):
            self._end_of_body()
        elif (status := self._over()) is not None:
            return self._give_up(status)
        return message

    def _end_of_body(self) -> None:
        """Count the request. Before, a client without a token could hold it."""
        self._complete = True
        self._gate._running += 1

    def _buffer(self, size: int) -> None:
        self._size += size
        self._gate._bytes[self._client] += size
        self._caller.read(size)

    def _over(self) -> int | None:
        held = self._gate._bytes
        if self._client is not None and held[self._client] > MAX_BUFFERED_BYTES_PER_ADDRESS:
            return 429
        if self._size > SMALL_BODY_BYTES and held.total() > MAX_BUFFERED_BYTES:
            return 503
        return None

    def _give_up(self, status: int) -> Message:
        if self._begun:  # the response needs no more of the body
            return {"type": "http.disconnect"}
        # While FastAPI reads a body, it lets only this exception through.
        raise HTTPException(status)


def _has_events(message: Message) -> bool:
    """Return True for the start of a stream of server-sent events."""
    if message["type"] != "http.response.start":
        return False
    kind: bytes = dict(message.get("headers", ())).get(b"content-type", b"")
    return kind.startswith(b"text/event-stream")


def served_hosts(settings: Settings, listening_on: str = "") -> frozenset[str]:
    """Return the configured hosts, in lower case and without ports.

    Loopback names are always served. No page on the internet has one, so they need no protection.
    """
    public = urlsplit(settings.public_url).hostname if settings.public_url else None
    named = (*settings.allowed_hosts, listening_on, public or "")
    return frozenset(_host(name) for name in named if name)


def _host(header: str) -> str:
    """Return the host of a `Host` header without its port, in lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    if header.count(":") > 1:
        return header.lower()  # an IPv6 address in a setting
    return header.partition(":")[0].rstrip(".").lower()


def _token(headers: Headers) -> bytes | None:
    """Return a key for the token that a request presents, valid or not."""
    presented = headers.get("authorization", "").split()
    return hashlib.sha256(presented[-1].encode("latin-1")).digest() if presented else None


@contextmanager
def _counted(counter: Counter, key: object) -> Iterator[None]:  # type: ignore[type-arg]
    if key is None:
        yield
        return
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


async def _answer_health(send: Send) -> None:
    """Send the answer of `/healthz` at the lowest cost, and end the connection."""
    body = b'{"status":"ok","checks":{}}'
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        CLOSE,
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _closing_when_busy(send: Send) -> Send:
    """End the connection after status 429: the requests that it already contains are not read."""

    async def sent(message: Message) -> None:
        if message.get("status") == 429:
            message["headers"] = [*message["headers"], CLOSE]
        await send(message)

    return sent


def _refuse(error: HttpProblem, headers: Headers) -> Response:
    """Return the response: readable text for a browser, problem details for a program."""
    if "text/html" not in headers.get("accept", ""):
        return problem(error)
    text = f"{error.message[0].upper()}{error.message[1:]}. {error.next_step('dashboard')}."
    return PlainTextResponse(text, error.status, headers=headers_of(error))
