"""No request and no disconnect of a client is logged as an error of the server.

An operator looks for the cause of each error. A client must not be able to hide one among many.
"""

from __future__ import annotations

import json
import logging
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest
from support.dashboard import Browser
from support.rest import Api, serving
from support.waiting import until

from core import TaskOutput
from core.dashboard.app import PAGES, Site
from core.rest.app import build
from core.scopes import ALL

PARTS = ("x", "%00", "%ff%fe", "a" * 3_000, "9" * 40, "-1", str(uuid4()), "%F0%9F%98%80", "..%2f")
"""Values of the parameters in paths."""

QUERIES = (
    *("after=%00", "after=WzEsMl0", "after=bnVsbA", "limit=x", "limit=-1", "%ff=%fe", "until=now"),
    *("q=%22&include=x", "user_integration_id=1", "now=perhaps&content=all", "wait=nan"),
)
JSON = "application/json"
BODIES = (
    (JSON, b""),
    (JSON, b"{"),
    (JSON, b"null"),
    (JSON, b"[]"),
    (JSON, b'"x"'),
    (JSON, b"\xff\xfe{}"),
    (JSON, b'{"name": "\\ud800", "credentials": {"a": "\\u0000"}}'),
    (JSON, b'{"a": 1e999, "b": ' + b"9" * 5_000 + b"}"),
    (JSON, b"[" * 50_000),
    (JSON, json.dumps({"integration_domain": "locked", "user_id": "\x00"}).encode()),
    (JSON, json.dumps({"integration_domain": "locked", "credentials": {"x": []}}).encode()),
    ("text/plain; charset=nowhere", b"a=b"),
    ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: nonsense\r\n\r\n"),
    ("application/x-www-form-urlencoded", b"csrf=%ff&name=%00&&&=;"),
    ("\u00fc/\u00df", b"x"),
)
HEADERS: tuple[dict[str, str], ...] = (
    {"If-Match": '"\\'},
    {"If-None-Match": ",,,"},
    {"Range": "bytes=9-1,"},
    {"Idempotency-Key": "k" * 300},
    {"Accept-Encoding": "gzip;q=x"},
    {"Content-Encoding": "gzip"},
    {"Cookie": "polling_session=%ff; a=\u00fc"},
    {"Expect": "nothing"},
)


@pytest.fixture
def faults(caplog) -> Iterator[list[str]]:
    """Yield a list, which has the logged errors at the end, and require that it is empty."""
    found: list[str] = []
    with caplog.at_level(logging.INFO):
        yield found
    found += [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert found == []


@pytest.fixture
def site(backend, desk, faults) -> Iterator[Api]:
    """Serve the API and the dashboard, with content. The server has ended before `faults`."""
    account = desk.account("mine", user_id="u")
    desk.keep(account, TaskOutput("1", b"x" * 3_000_000), TaskOutput("2", "text" * 100_000))
    with serving(backend, Site) as url:
        api = Api(backend, url)
        yield api
        for client in api.clients:
            client.close()


def routes(api: Api) -> Iterator[tuple[str, str]]:
    """Yield the method and the path of each route of the API and the dashboard."""
    for path, methods in build(api.backend).openapi()["paths"].items():
        for method in methods:
            yield method.upper(), path
    for module in PAGES:
        for route in module.router.routes:
            for method in sorted(route.methods):
                yield method, route.path.replace(":path", "")


def filled(path: str, part: str) -> str:
    """Return a path with this value of all its parameters."""
    return "/".join(part if "{" in step else step for step in path.split("/"))


@pytest.fixture
def browser(site) -> Iterator[httpx2.Client]:
    """A client with an operator's token and session."""
    token = site.token(scopes=ALL)
    client = site.client(token)
    Browser(client).send("/sign-in", {"token": token})
    return client


def test_no_request_of_a_client_is_logged_as_an_error(site, browser, faults) -> None:
    sent = 0
    for number, (method, path) in enumerate(routes(site)):
        if "sign-out" in path or (path.startswith("/v1/users") and method == "DELETE"):
            continue  # the session and the token are needed
        first = number % 3  # other routes get the others
        parts = PARTS[first::3] if "{" in path else PARTS[:1]
        requests = [(filled(path, part), {}, JSON, b"{}") for part in parts]
        known = filled(path, str(uuid4()))
        requests += [(f"{known}?{query}", {}, JSON, b"{}") for query in QUERIES[first::3]]
        requests += [(known, headers, JSON, b"{}") for headers in HEADERS[first::3]]
        if method != "GET":
            requests += [(known, {}, type, body) for type, body in BODIES[first::2]]
        for target, headers, type, body in requests:
            more = {"Content-Type": type, **headers}
            pairs = [(name.encode(), value.encode("latin-1")) for name, value in more.items()]
            content = None if method == "GET" else body
            with browser.stream(method, target, headers=pairs, content=content) as answer:
                # A plugin may fail: `receive_hints` documents status 500.
                assert answer.status_code < 500, (method, target, headers, type, body[:40])
            sent += 1
    assert sent > 1_000


def reset(connection: socket.socket) -> None:
    """Close a connection with a reset, so that the server cannot send the rest."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_no_disconnect_of_a_client_is_logged_as_an_error(site, browser, desk, faults) -> None:
    (item,) = desk.rows(
        "SELECT id FROM user_integration_content ORDER BY length(external_id), external_id LIMIT 1"
    )
    at, token = urlsplit(site.url), browser.headers["authorization"]
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    head = f"HTTP/1.1\r\nHost: {at.netloc}\r\nAuthorization: {token}\r\nCookie: {cookie}\r\n"
    body = f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n"
    raw = f"/v1/user-integration-content/{item[0]}/raw"
    partial = '\r\n{"integration_domain": '
    for request in (
        f"POST /v1/user-integrations {body}{partial}",
        f"POST /v1/user-integrations {body}Idempotency-Key: k\r\n{partial}",
        f"POST /v1/hints/locked {body}{partial}",
        f"POST /sign-in {body}{partial}",
        f"GET {raw} {head}\r\n",
        f"GET {raw} {head}Range: bytes=1-\r\n\r\n",
        f"GET /v1/export {head}\r\n",
        f"GET /v1/export {head}Accept-Encoding: gzip\r\n\r\n",
        f"GET /v1/changes?wait=20&after=latest {head}\r\n",
        f"GET /accounts {head}Accept: text/event-stream\r\n\r\n",
        f"GET /v1/user-integrations {head}\r\n" * 20,
    ):
        for end in (reset, socket.socket.close):
            for waits in (True, False):
                connection = socket.create_connection((at.hostname, at.port), timeout=0.2)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                connection.sendall(request.encode())
                if waits:
                    with suppress(TimeoutError):
                        connection.recv(100)
                end(connection)
    until(lambda: browser.get("/readyz").status_code < 500, "the server answers")
