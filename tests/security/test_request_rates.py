"""A client that sends requests without end is refused, and others are served.

Nothing here is timed: the rates are so low that a test sends no more than the burst allows.
"""

from __future__ import annotations

import re
import socket
from contextlib import closing, suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from support import proxies
from support.attacks import attacking
from support.rest import Api, serving
from support.serving import polling_serve

from core.dashboard.app import Site
from core.service import tokens
from core.web import request_rates
from core.web.request_rates import BURST_SECONDS, Rate

SLOW = 0.5
"""Requests per second in these tests."""

BURST = int(SLOW * BURST_SECONDS) + 1
"""Requests that a client may send immediately."""

CLIENT = "203.0.113.7"

HOST, CLOSE = b"Host: localhost\r\n", b"Connection: close\r\n"


@pytest.fixture(autouse=True)
def slow(settings, monkeypatch) -> None:
    monkeypatch.setattr(settings, "max_requests_per_second_per_address", SLOW)
    monkeypatch.setattr(settings, "max_requests_per_second_per_user", SLOW)
    monkeypatch.setattr(request_rates, "DELAY_SECONDS", 0.01)


@pytest.fixture
def api(backend):
    with serving(backend, Site) as url:
        yield (running := Api(backend, url))
        for client in running.clients:
            client.close()


def flood(url: str, request: bytes, count: int) -> bytes:
    """Send requests without waiting for responses, and return all bytes that arrive."""
    at = urlsplit(url)
    with closing(socket.create_connection((at.hostname, at.port), timeout=30)) as one:
        received = b""
        with suppress(OSError):  # the server closes the connection while requests are unread
            one.sendall(request * (count - 1) + request.replace(HOST, HOST + CLOSE))
        with suppress(OSError):
            while part := one.recv(65_536):
                received += part
        return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", received)]


def get(path: str, **headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("path", ["/v1/integrations", "/sign-in", "/static/style.css", "/nowhere"])
def test_requests_in_one_connection_are_bounded(api, path) -> None:
    received = flood(api.url, get(path), 10 * BURST)
    found = statuses(received)
    assert 429 not in found[:-1]
    assert len(found) <= BURST + 1
    if len(found) == BURST + 1:
        last = received[received.rindex(b"HTTP/1.1") :].lower()
        assert b"retry-after: 1\r\n" in last
        assert b"connection: close\r\n" in last
        assert b"address-too-fast" in last
    assert statuses(flood(api.url, get(path), 1)) == [429]  # a new connection does not help


def test_health_is_answered_during_a_flood(api) -> None:
    """A flood of these ends with its connection, and each new connection gets an answer."""
    assert set(statuses(flood(api.url, get("/v1/integrations"), 2 * BURST))) <= {401, 429}
    assert statuses(flood(api.url, get("/healthz"), 1)) == [200]
    found = statuses(flood(api.url, get("/healthz"), 10 * BURST))
    assert set(found) == {200}
    assert len(found) <= BURST
    assert flood(api.url, get("/healthz"), 3).endswith(b'{"status":"ok","checks":{}}')


@pytest.mark.parametrize("path", ["/healthz", "/v1/integrations"])
def test_responses_beyond_the_rate_wait(api, monkeypatch, path) -> None:
    """A client that opens a new connection after each of them would occupy the server too."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(request_rates, "asyncio", SimpleNamespace(sleep=sleep))
    flood(api.url, get(path), BURST - 1)
    assert pauses == []
    for _ in range(3):
        flood(api.url, get(path), 2)
    assert pauses == [request_rates.DELAY_SECONDS] * 3
    monkeypatch.setattr(request_rates, "MAX_DELAYED", 0)  # delays occupy connections
    flood(api.url, get(path), 2)
    assert len(pauses) == 3


def test_each_client_of_a_proxy_counts_for_itself(api) -> None:
    flood(api.url, get("/v1/integrations", X_Forwarded_For=CLIENT), 2 * BURST)
    for client, status in ((CLIENT, 429), ("203.0.113.8", 401)):
        answer = flood(api.url, get("/v1/integrations", X_Forwarded_For=client), 1)
        assert statuses(answer) == [status]
    flood(api.url, get("/v1/integrations", X_Forwarded_For="2a00::1"), 2 * BURST)
    for client, status in (("2a00::2", 429), ("2a00:0:0:1::1", 401)):
        answer = flood(api.url, get("/v1/integrations", X_Forwarded_For=client), 1)
        assert statuses(answer) == [status]


@pytest.mark.parametrize("path", ["/healthz", "/v1/integrations"])
def test_invented_addresses_behind_a_proxy_have_one_rate(backend, monkeypatch, path) -> None:
    """A program on the machine of a proxy can send any `X-Forwarded-For`."""
    monkeypatch.setattr(request_rates, "PROXY_REQUESTS_PER_SECOND", SLOW)
    monkeypatch.setattr(request_rates, "PROXY_BURST_SECONDS", BURST_SECONDS)
    with serving(backend, Site) as url:
        api = Api(backend, url)
        ann = api.user("ann")
        assert ann.get("/v1/integrations").status_code == 200
        received = b"".join(
            flood(url, get(path, X_Forwarded_For=f"203.0.113.{number}"), 2)
            for number in range(4 * BURST)
        )
        assert len(statuses(received)) < 6 * BURST, "each refused request ends its connection"
        refused = flood(url, get("/v1/integrations", X_Forwarded_For="198.51.100.1"), 1)
        assert (b"proxy-too-fast" in refused) == (path != "/healthz")
        assert statuses(flood(url, get("/healthz"), 1)) == [200]
        assert ann.get("/v1/integrations", headers={"X-Forwarded-For": CLIENT}).status_code == 200
        ann.close()


def test_a_flood_does_not_stop_those_who_share_the_address(api) -> None:
    ann, operator = api.user("ann"), api.admin
    assert ann.get("/v1/integrations").status_code == 200
    flood(api.url, get("/v1/integrations"), 2 * BURST)
    assert operator.get("/v1/integrations").status_code == 200  # its first request
    flood(api.url, get("/v1/integrations", Authorization="Bearer wrong"), 2 * BURST)
    flood(api.url, get("/v1/integrations", Cookie="polling_session=wrong"), 2 * BURST)
    assert ann.get("/v1/integrations").status_code == 200
    assert operator.get("/v1/integrations").status_code == 200


def test_all_tokens_and_sessions_of_a_user_are_one_client(api) -> None:
    first, second, other = api.user("mallory"), api.user("mallory"), api.user("ann")
    cookies = sign_in(api, api.token("mallory"))
    found = [first.get("/v1/integrations").status_code for _ in range(2 * BURST)]
    assert found[:BURST].count(200) >= BURST - 1
    answer = second.get("/v1/integrations")
    assert (answer.status_code, answer.json()["code"]) == (429, "user-too-fast")
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["connection"] == "close"
    page = api.client(None).get("/accounts", headers={"Cookie": cookies})
    assert page.status_code == 429
    assert page.headers["retry-after"] == "1"
    assert "too many requests per second" in page.text.lower()
    assert other.get("/v1/integrations").status_code == 200


def sign_in(api: Api, token: str) -> str:
    answer = api.client(None).post("/sign-in", data={"token": token})
    assert answer.status_code == 303
    return str(answer.headers["set-cookie"]).partition(";")[0]


def test_operators_have_no_rate(api) -> None:
    operator = api.admin
    for _ in range(5 * BURST):
        assert operator.get("/v1/integrations").status_code == 200


def test_a_revoked_token_counts_for_its_address_again(api) -> None:
    with api.backend.database.connection() as conn:
        token = tokens.create(conn, user_id="ann")
    ann = api.client(token.secret)
    assert ann.get("/v1/integrations").status_code == 200
    with api.backend.database.connection() as conn:
        tokens.revoke(conn, token.id)
    found = [ann.get("/v1/integrations").status_code for _ in range(BURST + 3)]
    assert (found[0], found[-1]) == (401, 429)


@pytest.mark.parametrize(
    "request_",
    [
        get("/v1/integrations", **{f"X{n}": "" for n in range(3_000)}),
        get("/v1/integrations?" + "a&" * 15_000),
        get("/v1/user-integrations/" + "a" * 30_000),
    ],
    ids=["fields", "query", "path"],
)
def test_large_headers_count_as_several_requests(api, request_) -> None:
    found = statuses(flood(api.url, request_, BURST))
    assert found[0] in (401, 404, 422)
    assert len(found) <= 2


def test_large_bodies_count_as_several_requests(api) -> None:
    body = b"[" + b"0," * 200_000 + b"0]"
    head = (
        b"POST /v1/user-integrations HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    found = statuses(flood(api.url, head + body, 3))
    assert found[0] == 401
    assert found[1:] in ([429], [])


@pytest.mark.parametrize("proxy", [proxies.caddy, proxies.nginx])
def test_a_flood_through_a_proxy_stops_only_its_address(proxy, deployment, tmp_path) -> None:
    home = tmp_path / "proxy"
    home.mkdir()
    rates = {"POLLING_MAX_REQUESTS_PER_SECOND_PER_ADDRESS": str(SLOW)}
    with (
        polling_serve(deployment, tmp_path, **rates) as served,
        proxy(served.port, home) as url,
        attacking(url) as attackers,
        served.client(url, "wrong") as stranger,
        served.client(url) as operator,
    ):
        request = b"GET /v1/integrations HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with closing(attackers.connect()) as one:
            one.settimeout(20)
            one.sendall(request * 2 * BURST)
            received = b""
            while b" 429 " not in received:
                received += one.recv(65_536)
        assert stranger.get("/healthz").status_code == 200
        assert stranger.get("/v1/integrations").status_code == 401
        assert operator.get("/v1/integrations").status_code == 200


# The rule, with a clock of the test
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch) -> Any:
    clock = SimpleNamespace(now=1_000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(request_rates, "time", clock)
    return clock


def test_a_client_gets_its_rate_for_ever(clock) -> None:
    rate = Rate(10)
    taken = 0
    for _ in range(6_000):  # three times as often as allowed, for 200 seconds
        taken += rate.take("a")
        clock.now += 1 / 30
    assert 2_000 <= taken - 10 * BURST_SECONDS <= 2_002
    assert rate.take("b")


def test_requests_that_are_taken_back_do_not_count(clock) -> None:
    rate = Rate(10)
    for _ in range(1_000):
        assert rate.take("a", 3)
        rate.charge("a", -3)


def test_the_clients_that_are_known_are_bounded(clock, monkeypatch) -> None:
    monkeypatch.setattr(request_rates, "MAX_CLIENTS", 3)
    rate = Rate(10)
    for client in range(10):
        rate.take(client)
    assert len(rate._due) == 3
