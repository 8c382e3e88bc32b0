"""The server answers only for its own hosts, and bounds what an address or a token may occupy."""

from __future__ import annotations

import asyncio
import http.client
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.responses import PlainTextResponse
from support.rest import Api, serving
from support.waiting import until

from core.dashboard.app import Site
from core.settings import Settings
from core.web import feed_watcher, gate
from core.web.gate import Proxies, served_hosts

CLIENT = "203.0.113.7"


def get(url: str, path: str, **headers: str) -> tuple[int, str]:
    """Request a path with exactly these headers."""
    at = urlsplit(url)
    with closing(http.client.HTTPConnection(at.hostname or "", at.port, timeout=20)) as connection:
        connection.putrequest("GET", path, skip_host=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.fixture
def site(backend) -> Iterator[str]:
    with serving(backend, Site) as url:
        yield url


@pytest.mark.parametrize(
    "host",
    ["evil.example", "polling.example.evil.example", "127.0.0.1.evil.example", "169.254.169.254",
     "evil.example:80", "[fe80::1]:80", "", "polling.example@evil.example"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/sign-in", "/v1/integrations", "/openapi.json", "/readyz"])
def test_an_unknown_host_is_not_served(site, host, path) -> None:
    status, text = get(site, path, Host=host)
    assert status == 421
    assert "POLLING_ALLOWED_HOSTS" in text
    assert "evil" not in text


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "polling.example",
     "Polling.Example:443", "polling.example."],
)  # fmt: skip
def test_configured_hosts_are_served(site, host) -> None:
    assert get(site, "/sign-in", Host=host)[0] == 200


def test_health_is_answered_under_every_name(site) -> None:
    """Load balancers use the address of a container."""
    assert get(site, "/healthz", Host="10.0.0.7:8080") == (200, '{"status":"ok","checks":{}}')


def test_a_browser_gets_a_readable_answer(site) -> None:
    status, text = get(site, "/", Host="192.168.1.5", Accept="text/html,*/*")
    assert status == 421
    assert text.startswith("This server does not serve the host")


@pytest.mark.parametrize(
    ("given", "listening_on", "served"),
    [
        ({}, "", set()),
        ({"public_url": "https://Polling.example.org:8443/x"}, "", {"polling.example.org"}),
        (
            {"allowed_hosts": "api, b.example:80"},
            "192.168.1.5",
            {"api", "b.example", "192.168.1.5"},
        ),
        ({}, "2001:db8::5", {"2001:db8::5"}),
    ],
)
def test_the_served_hosts_come_from_the_settings(given, listening_on, served) -> None:
    hosts = served_hosts(Settings(_env_file=None, **given), listening_on)
    assert hosts == served


# The address of a client
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.1", "", "198.51.100.1"),
        ("198.51.100.1", "203.0.113.7", "198.51.100.1"),  # the client invented it
        ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "1.1.1.1, 203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "1.1.1.1, 203.0.113.7, 10.0.0.1", "203.0.113.7"),
        ("127.0.0.1", "10.0.0.2, 10.0.0.1", "10.0.0.2"),
        ("127.0.0.1", "", None),
        ("127.0.0.1", "203.0.113.7:50123", "203.0.113.7"),  # some proxies add the port
        ("127.0.0.1", "2001:db8::7", "2001:db8::7"),
        ("127.0.0.1", "[2001:db8::7]:50123", "2001:db8::7"),
        ("127.0.0.1", "1.1.1.1, 203.0.113.7:1, 10.0.0.1:2", "203.0.113.7"),
        ("127.0.0.1", "unknown", None),
        ("127.0.0.1", "1.1.1.1, <script>", None),
        ("127.0.0.1", "1.1.1.1, a:b:c, 10.0.0.1", None),
    ],
)
def test_only_proxies_name_a_client(peer, forwarded, client) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    scope: Any = {"type": "http", "client": (peer, 1), "headers": headers}
    assert Proxies(["127.0.0.0/8", "10.0.0.0/8"]).client(scope) == client


# Bounds
# ------------------------------------------------------------------------------------------------


class Slow:
    """An application whose requests wait until the test ends."""

    def __init__(self) -> None:
        self.running = 0
        self.leave = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/slow":
            self.running += 1
            while not self.leave.is_set():
                await asyncio.sleep(0.01)
        if scope["type"] == "http":
            await PlainTextResponse("done")(scope, receive, send)


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.leave.set()


@pytest.mark.parametrize(
    ("bound", "busy", "fine", "status", "code"),
    [
        ("per_address", {"X_Forwarded_For": CLIENT}, {"X_Forwarded_For": "203.0.113.8"}, 429,
         "address-busy"),
        ("per_address", {"X_Forwarded_For": "2a00::1:2"}, {"X_Forwarded_For": "2a00:0:0:1::1"}, 429,
         "address-busy"),
        ("MAX_REQUESTS_PER_TOKEN", {"Authorization": "Bearer a"}, {"Authorization": "Bearer b"},
         429, "token-busy"),
        ("MAX_REQUESTS", {}, None, 503, "server-busy"),
    ],
)  # fmt: skip
def test_requests_in_progress_are_bounded(
    backend, slow, monkeypatch, bound, busy, fine, status, code
) -> None:
    if bound == "per_address":
        monkeypatch.setattr(backend.settings, "max_connections_per_address", 3)
    else:
        monkeypatch.setattr(gate, bound, 3)
    with serving(backend, lambda _: slow) as url, ThreadPoolExecutor(4) as pool:
        try:
            running = [pool.submit(get, url, "/slow", Host="localhost", **busy) for _ in range(3)]
            until(lambda: slow.running == 3, "the requests are in progress")
            answer = get(url, "/fast", Host="localhost", **busy)
            assert (answer[0], code in answer[1]) == (status, True)
            if fine is not None:
                assert get(url, "/fast", Host="localhost", **fine)[0] == 200
            assert get(url, "/healthz", Host="localhost", **busy)[0] == 200
        finally:
            slow.leave.set()
        assert [one.result()[0] for one in running] == [200] * 3
        assert get(url, "/fast", Host="localhost", **busy)[0] == 200


def test_bodies_of_one_address_do_not_fill_the_memory(api, monkeypatch) -> None:
    monkeypatch.setattr(gate, "MAX_BUFFERED_BYTES_PER_ADDRESS", 300_000)
    with _half_bodies(api.url, [CLIENT] * 5) as holders:
        first = until(lambda: _first_answer(holders), "one of them is refused")
    assert first.startswith(b"HTTP/1.1 429 ")


def test_bodies_of_many_addresses_do_not_fill_the_memory(api, monkeypatch) -> None:
    monkeypatch.setattr(gate, "MAX_BUFFERED_BYTES", 300_000)
    with _half_bodies(api.url, [f"203.0.113.{n}" for n in range(5)]) as holders:
        first = until(lambda: _first_answer(holders), "one of them is refused")
    assert first.startswith(b"HTTP/1.1 503 ")


@contextmanager
def _half_bodies(url: str, clients: list[str]) -> Iterator[list[socket.socket]]:
    """Send a part of a large body for each client, through a connection of its own."""
    at = urlsplit(url)
    with ExitStack() as stack:
        holders = []
        for client in clients:
            one = stack.enter_context(socket.create_connection((at.hostname, at.port)))
            one.sendall(
                b"POST /v1/user-integrations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000"
                b"\r\nContent-Type: application/json\r\n"
                + f"X-Forwarded-For: {client}\r\n\r\n".encode()
                + b" " * 100_000
            )
            holders.append(one)
        holders[-1].settimeout(20)
        yield holders


def _first_answer(connections: list[Any]) -> bytes:
    for one in connections:
        one.setblocking(False)
        try:
            return one.recv(1000)  # type: ignore[no-any-return]
        except BlockingIOError:
            continue
    return b""


# Readers of the change feed
# ------------------------------------------------------------------------------------------------


@contextmanager
def reading(url: str, *tokens: str) -> Iterator[list[socket.socket]]:
    """Wait for changes with each token through a connection of its own."""
    at, waiting = urlsplit(url), []
    with ExitStack() as stack:
        for token in tokens:
            one = stack.enter_context(socket.create_connection((at.hostname, at.port)))
            one.sendall(
                b"GET /v1/changes?wait=60&after=latest HTTP/1.1\r\nHost: localhost\r\n"
                + f"Authorization: Bearer {token}\r\n\r\n".encode()
            )
            waiting.append(one)
        yield waiting


def answers_of(connections: list[socket.socket]) -> list[str]:
    """Return the answers that have arrived."""
    ready, _, _ = select.select(connections, [], [], 0)
    return [one.recv(65_536, socket.MSG_PEEK).decode() for one in ready]


@pytest.mark.parametrize("tokens", [1, 6])
def test_waiting_readers_of_a_user_are_bounded(api: Api, tokens) -> None:
    greedy, fair = [api.token("mallory") for _ in range(tokens)], api.user("ann")
    with reading(api.url, *(greedy[n % tokens] for n in range(30))) as waiting:
        until(lambda: len(answers_of(waiting)) == 10, "ten of them are refused")
        for answer in answers_of(waiting):
            assert answer.startswith("HTTP/1.1 429 ")
            assert "readers-busy" in answer
            assert "retry-after" in answer
        assert api.client(greedy[0]).get("/v1/changes").status_code == 200
        assert fair.get("/v1/changes", params={"wait": 0.1}).status_code == 200
    again = api.client(greedy[0])  # the server notices that clients leave
    until(
        lambda: again.get("/v1/changes", params={"wait": 0.1}).status_code == 200,
        "a reader that has left frees its place",
    )


def _is_done(answer: Any) -> bool:
    return bool(answer.done())


def test_waiting_readers_of_all_users_are_bounded(backend, monkeypatch) -> None:
    monkeypatch.setattr(feed_watcher, "MAX_READERS", 2)
    made: list[Any] = []
    with serving(backend, lambda rest: made.append(rest) or rest) as url:  # type: ignore[func-returns-value]
        readers, api = made[0].state.feed_watcher._readers, Api(backend, url)
        late = api.user("c")
        with reading(url, api.token("a"), api.token("b")) as waiting:
            until(lambda: readers.total() == 2, "the places are taken")
            assert late.get("/v1/changes", params={"wait": 0.01}).status_code == 503
            assert answers_of(waiting) == []
        until(
            lambda: late.get("/v1/changes", params={"wait": 0.01}).status_code == 200,
            "readers that have left free their places",
        )
        late.close()


def test_health_answers_while_all_threads_are_busy(api: Api, monkeypatch) -> None:
    """Forty threads serve requests; the health of the process needs none."""
    leave = threading.Event()

    def stuck(*_: Any) -> None:
        leave.wait(30)

    monkeypatch.setattr("core.web.dependencies.tokens.authenticate", stuck)
    clients = [api.client("any") for _ in range(60)]
    with ThreadPoolExecutor(60) as pool:
        answers = [pool.submit(client.get, "/v1/integrations") for client in clients]
        try:
            begun = time.monotonic()
            assert get(api.url, "/healthz", Host="localhost")[0] == 200
            assert time.monotonic() - begun < 10
            assert not any(map(_is_done, answers))
        finally:
            leave.set()
        wait(answers)
