"""The time of a request on a kept-alive connection, against bare uvicorn.

Rounds alternate between `polling serve` and its peers. Each round sends its requests over one
connection, one after the other. The client is a plain socket in this process, so its own time is
small, and is part of both figures.
"""

from __future__ import annotations

import socket
import statistics
import time
from typing import Any
from urllib.parse import urlsplit

from benchmarks.engine import Engine, Testbed
from benchmarks.peers import asgi
from benchmarks.readers import served
from benchmarks.report import Budget, Options, Report, ratio
from core.service import tokens

REQUESTS = 2_000
ROUNDS_PER_ROUND = 5
"""Rounds for each round of the options: one takes only seconds."""

HEALTH, LISTING = "/healthz", "/v1/user-integrations?limit=1"


def run(bed: Testbed, options: Options) -> Report:
    """Measure the median time of a request in each round, in microseconds."""
    requests = options.size(REQUESTS, 50)
    figures: dict[str, list[float]] = {}
    with Engine(bed) as engine:
        # One client sends more requests than people do.
        engine.environment = {
            **engine.environment,
            "POLLING_MAX_REQUESTS_PER_SECOND_PER_ADDRESS": "1000000",
        }
        engine.account()
        token = tokens.create(engine.conn, user_id=None).secret
        with (
            served(engine) as ours,
            asgi.served(engine, "site") as site,
            asgi.served(engine, "small") as small,
        ):
            cases = {
                "ours": (ours, HEALTH),
                "small": (small, HEALTH),
                "site": (site, HEALTH),
                "listing": (ours, LISTING),
                "listing of site": (site, LISTING),
            }
            for number in range(options.rounds * ROUNDS_PER_ROUND + 1):
                for name, (url, path) in cases.items():
                    microseconds = _measure(url, path, token, requests)
                    if number:  # the first round loads code
                        figures.setdefault(name, []).append(microseconds)
    compared = {HEALTH: ("ours", "site"), LISTING: ("listing", "listing of site")}
    budgets = [
        Budget(
            f"GET {path}, relative to the same application on bare uvicorn",
            ratio(figures[ours], figures[peer]),
            at_most=1.5,
        )
        for path, (ours, peer) in compared.items()
    ]
    rows = [
        _row(f"`{path}`, the same application", figures[ours], figures[peer])
        for path, (ours, peer) in compared.items()
    ]
    rows.append(
        _row("the same bytes, an application without routes", figures["ours"], figures["small"])
    )
    return Report(
        "keepalive",
        "µs",
        figures["ours"],
        figures["site"],
        "the same application on bare uvicorn",
        budgets,
        {"requests": rows},
    )


def _row(name: str, ours: list[float], peers: list[float]) -> dict[str, Any]:
    return {
        "": name,
        "`polling serve`, µs": round(statistics.median(ours)),
        "bare uvicorn, µs": round(statistics.median(peers)),
        "ratio": round(ratio(ours, peers), 2),
    }


def _measure(url: str, path: str, token: str, requests: int) -> float:
    """Return the median of the microseconds of requests over one connection."""
    at = urlsplit(url)
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {at.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()
    times = []
    with socket.create_connection((at.hostname, at.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(requests):
            begun = time.perf_counter()
            connection.sendall(request)
            _receive(connection)
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def _receive(connection: socket.socket) -> None:
    """Receive one response with status 200 and a length.

    Raises:
      ConnectionError: It is another one, or the server ends the connection.
    """
    received = b""
    while True:
        part = connection.recv(65_536)
        received += part
        head, end, body = received.partition(b"\r\n\r\n")
        if not part or not head.startswith(b"HTTP/1.1 200 "[: len(head)]):
            raise ConnectionError(received[:200].decode("latin-1"))
        if end and len(body) >= _length(head):
            return


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ConnectionError("a response without a length")
