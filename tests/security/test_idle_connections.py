"""Clients without a token that send nothing, or half a request, stop nobody.

They attack `polling serve` on its own, and behind each proxy of `deploy/`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest
from support import proxies
from support.attacks import HALF_BODY, HALF_HEADER, SILENT, Attackers, attacking
from support.serving import Served, polling_serve
from support.waiting import until

HOSTILE = 2_000
FRONTS = {"alone": None, "caddy": proxies.caddy, "nginx": proxies.nginx}


@pytest.fixture(params=["alone", "nginx", pytest.param("caddy", marks=pytest.mark.long)])
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def serving_behind(front: str, deployment, folder: Path) -> Iterator[tuple[Served, str]]:
    """Run the server, and the proxy in front of it; yield the server and the public address."""
    proxy = FRONTS[front]
    home = folder / "proxy"
    home.mkdir()
    with (
        polling_serve(deployment, folder) as served,
        proxy(served.port, home) if proxy else nullcontext(served.url) as url,
    ):
        yield served, url


def assert_served(served: Served, url: str) -> None:
    """Check that others are answered: on a new connection each time, and for each kind of work."""
    for path in ("/healthz", "/readyz", "/v1/integrations", "/v1/user-integrations"):
        with served.client(url) as client:
            assert client.get(path).status_code == 200, path
    with served.client(url) as client:
        new = {"integration_domain": "hello-world", "user_id": "me"}
        assert client.post("/v1/user-integrations", json=new).status_code in (200, 201)


def test_clients_without_a_request_stop_nobody(front, deployment, tmp_path) -> None:
    with (
        serving_behind(front, deployment, tmp_path) as (served, url),
        attacking(url) as attackers,
    ):
        for beginning in (SILENT, HALF_HEADER, HALF_BODY):
            attackers.open(HOSTILE // 3, beginning)
            assert_served(served, url)
        attackers.wait_until_closed(60)
        assert_served(served, url)
        assert "failed" not in served.log.read_text()  # attackers must not fill the log


def test_more_connections_than_the_server_allows_stop_nobody(deployment, tmp_path) -> None:
    with (
        polling_serve(deployment, tmp_path, POLLING_MAX_CONNECTIONS="200") as served,
        attacking(served.url) as attackers,
    ):
        attackers.open(600, HALF_HEADER)
        assert_served(served, served.url)
        assert attackers.open_ones() <= 200
    assert "too many connections" in served.log.read_text()


def test_few_file_descriptors_stop_nobody(deployment, tmp_path) -> None:
    """The server keeps below the bound of the system, instead of failing at it."""
    with (
        polling_serve(deployment, tmp_path, files=512) as served,
        attacking(served.url) as attackers,
    ):
        attackers.open(800, SILENT)
        assert_served(served, served.url)
        assert served.process.num_fds() < 512


def test_one_address_cannot_take_all_connections(deployment, tmp_path) -> None:
    bounds = {
        "POLLING_TRUSTED_PROXIES": "127.0.0.1",
        "POLLING_MAX_CONNECTIONS_PER_ADDRESS": "50",
    }
    with (
        polling_serve(deployment, tmp_path, **bounds) as served,
        attacking(served.url) as attackers,
    ):
        attackers.open(300, SILENT)
        assert_served(served, served.url)
        assert attackers.open_ones() <= 50
        until(lambda: answers(attackers), "the address itself is served too")


def answers(attackers: Attackers) -> bool:
    """Return True if a late request of the attackers is answered: an older connection gives way."""
    with closing(attackers.connect()) as late, suppress(OSError):
        late.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return late.recv(100).startswith(b"HTTP/1.1 200")
    return False


def test_a_client_that_does_not_read_is_cut_off(deployment, tmp_path) -> None:
    with polling_serve(deployment, tmp_path) as served, closing(socket.socket()) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.connect(("127.0.0.1", served.port))
        deaf.settimeout(1)
        with suppress(TimeoutError):
            while True:  # until the server stops reading
                deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        place = deaf.getsockname()

        def connected() -> bool:
            return any(one.raddr == place for one in served.process.net_connections())

        assert connected()
        assert_served(served, served.url)
        until(lambda: not connected(), "the server closes the connection", 90)


def test_a_body_that_comes_too_slowly_is_answered(deployment, tmp_path) -> None:
    """The response names the reason, and the connection ends."""
    with (
        polling_serve(deployment, tmp_path) as served,
        attacking(served.url) as attackers,
        closing(attackers.connect()) as slow,
    ):
        slow.sendall(HALF_BODY)
        slow.settimeout(60)
        answer = b"".join(iter(lambda: slow.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"request-timeout"' in answer


def test_alone_the_server_listens_on_loopback_and_says_why(deployment, tmp_path) -> None:
    with polling_serve(deployment, tmp_path) as served:
        sockets = served.process.net_connections()
        assert {one.laddr.ip for one in sockets if one.status == "LISTEN"} == {"127.0.0.1"}
        assert "Only this machine can connect, because" in served.log.read_text()
