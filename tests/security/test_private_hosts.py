"""A public host that leads to a private one: by its name, its addresses, or a redirect.

The owner of a name decides what it means, each time that somebody looks it up.
"""

from __future__ import annotations

import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel
from support.attacks import ATTACKER
from support.ports import free_port

import core.egress
from core import AccountIdentity, BaseIntegration, Context, Manifest, TaskResult
from core.http_session import HttpSession
from core.public_addresses import is_public

PUBLIC, PRIVATE = ATTACKER, "127.0.0.1"
"""Two addresses of this machine. For these tests, the first one is on the internet."""

NAME, SECRET = "files.example.org", "the page of the internal network"


class Config(BaseModel):
    url: str
    through: str


def _urllib(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=4) as answer:
        return str(answer.read().decode())


def _httpx(url: str) -> str:
    return httpx2.get(url, follow_redirects=True, timeout=4, trust_env=False).text


def _session(url: str) -> str:
    with HttpSession() as http:
        return str(http.get(url, follow_redirects=True).text)


def _twice(url: str) -> str:
    """Connect, and connect again, as FTP does for its data."""
    at = httpx2.URL(url)
    for _ in range(2):
        connection = socket.create_connection((at.host, at.port or 80), timeout=4)
        connection.close()
    return SECRET


THROUGH: dict[str, Callable[[str], str]] = {
    "urllib": _urllib,
    "httpx": _httpx,
    "ctx.http": _session,
    "two connections": _twice,
}


class Reaching(BaseIntegration[Config]):
    """An integration whose library follows redirects, and looks names up again."""

    manifest = Manifest("reaching", "Reaching")

    def check(self) -> AccountIdentity:
        return AccountIdentity("page", THROUGH[self.config.through](self.config.url))

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()


@pytest.fixture
def integrations() -> Sequence[Any]:
    return (Reaching,)


class Host(ThreadingHTTPServer):
    """A web server at one address. It redirects if `location` is set."""

    daemon_threads = True

    def __init__(self, address: str, port: int) -> None:
        super().__init__((address, port), _Handler)
        self.location: str | None = None
        self.text, self.visits = SECRET, 0

    def server_bind(self) -> None:
        """Bind without the search for the name of the address, for which no name server answers."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def get_request(self) -> Any:
        self.visits += 1
        return super().get_request()


class _Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        """Answer with a page, or with the redirect."""
        body = self.server.text.encode()
        self.send_response(302 if self.server.location else 200)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None: ...


@contextmanager
def _serving(host: Host) -> Iterator[Host]:
    thread = threading.Thread(target=host.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield host
    finally:
        host.shutdown()
        host.server_close()
        thread.join()


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Host, Host]]:
    """Return a public and a private host at the same port."""
    monkeypatch.setattr(core.egress, "is_public", lambda host: host == PUBLIC or is_public(host))
    port = free_port()
    with ExitStack() as stack:
        try:
            public = stack.enter_context(_serving(Host(PUBLIC, port)))
        except OSError:
            pytest.skip(f"this system has no address {PUBLIC}")
        public.text = "the page of the internet"
        yield public, stack.enter_context(_serving(Host(PRIVATE, port)))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the answers of the name server for `NAME`. It repeats the last one."""
    answers: list[list[str]] = []
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **more: Any) -> Any:
        if host not in (NAME, NAME.encode()):
            return look_up(host, port, *arguments, **more)
        sys.audit("socket.getaddrinfo", host, port, 0, 0, 0)
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [found for one in addresses for found in look_up(one, port, *arguments, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


def connect(api: Any, url: str, through: str) -> httpx2.Response:
    body = {"integration_domain": "reaching", "config": {"url": url, "through": through}}
    answer: httpx2.Response = api.user("mallory").post("/v1/user-integrations", json=body)
    return answer


def assert_refused(answer: httpx2.Response, private: Host) -> None:
    assert (answer.status_code, answer.json().get("code")) == (422, "host-unreachable")
    assert SECRET not in answer.text
    assert private.visits == 0


@pytest.mark.parametrize("through", THROUGH)
def test_a_public_host_is_reached_by_its_name(api, hosts, names, through) -> None:
    names.append([PUBLIC])
    public, private = hosts
    answer = connect(api, f"http://{NAME}:{public.server_port}/", through)
    assert (answer.status_code, public.visits > 0, private.visits) == (201, True, 0)


@pytest.mark.parametrize("through", ["urllib", "httpx", "ctx.http"])
@pytest.mark.parametrize("host", [PRIVATE, NAME, "2130706433", "[::ffff:127.0.0.1]", "localhost"])
def test_a_redirect_to_a_private_host_is_not_followed(api, hosts, names, through, host) -> None:
    names.append([PRIVATE])
    public, private = hosts
    public.location = f"http://{host}:{private.server_port}/"
    answer = connect(api, f"http://{PUBLIC}:{public.server_port}/", through)
    assert_refused(answer, private)
    assert public.visits == 1


def test_a_name_that_becomes_private_is_not_reached(api, hosts, names) -> None:
    """DNS rebinding: the second lookup of one check has another answer than the first."""
    names += [[PUBLIC], [PRIVATE]]
    public, private = hosts
    answer = connect(api, f"http://{NAME}:{public.server_port}/", "two connections")
    assert_refused(answer, private)
    assert public.visits == 1


@pytest.mark.parametrize("through", ["urllib", "httpx", "ctx.http"])
@pytest.mark.parametrize("addresses", [[PRIVATE], [PRIVATE, PUBLIC], [PUBLIC, PRIVATE]])
def test_no_address_of_a_name_leads_to_a_private_host(
    api, hosts, names, through, addresses
) -> None:
    """A library tries the addresses of a name one after another, until one accepts."""
    names.append(addresses)
    public, private = hosts
    public.shutdown()
    public.server_close()
    assert_refused(connect(api, f"http://{NAME}:{private.server_port}/", through), private)
