"""The response times of the API with 2,000 hostile connections, and without them.

`polling serve` runs on its own, and behind each proxy of `deploy/`. The hostile connections have no
token: they send nothing, half a header or half a body, and come back when the server closes them
(`benchmarks/attackers.py`). Honest clients read a list at the same time, and open a new connection
for every tenth request. Each client has an address of its own, and the attackers have one. Linux
accepts all addresses of 127.0.0.0/8.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from urllib.parse import urlsplit

from benchmarks.engine import Engine, Testbed
from benchmarks.processes import program, wait_until
from benchmarks.proxies import PROXIES, installed
from benchmarks.readers import served
from benchmarks.report import Budget, Options, Report, ratio
from core.service import tokens

HOSTILE = 2_000
CLIENTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
ATTACKER = "127.0.0.66"
PER_CONNECTION = 10
PATH = "/v1/user-integrations?limit=10"
ALONE = "no proxy"

_folders = count(1)

Pairs = list[tuple[list[float], list[float]]]
"""The milliseconds of all requests of a round: without the attack, and with it."""


def run(bed: Testbed, options: Options) -> Report:
    """Measure the 99th percentile of honest requests with the attack and without."""
    number, requests = options.size(HOSTILE, 50), options.size(4_000, 80)
    measured: dict[str, Pairs] = {}
    with Engine(bed) as engine, served(engine) as url:
        token = tokens.create(engine.conn, user_id=None).secret
        for _ in range(20):
            engine.account("hello-world")
        for name in (ALONE, *filter(installed, PROXIES)):
            with _behind(name, url, engine) as front:
                _times(front, token, requests // 4)  # opens the connections behind the front
                measured[name] = [
                    _pair(front, token, requests, number, engine) for _ in range(options.rounds)
                ]
    calm, hostile = zip(*(_percentiles(pair, 99) for pair in measured[ALONE]), strict=True)
    return Report(
        "hostile",
        "ms",
        hostile,
        calm,
        "the same requests without hostile connections",
        [_budget(name, pairs) for name, pairs in measured.items()],
        {
            "response times": [
                row for name in measured for row in _rows(name, measured[name], number)
            ]
        },
    )


@contextmanager
def _behind(name: str, url: str, engine: Engine) -> Iterator[str]:
    """Run a proxy in front of the API, if `name` is one; yield the address for clients."""
    if name == ALONE:
        yield url
        return
    home = engine.home / f"{name}-{next(_folders)}"
    home.mkdir()
    with PROXIES[name](urlsplit(url).port or 80, home) as front:
        yield front


def _pair(
    url: str, token: str, requests: int, number: int, engine: Engine
) -> tuple[list[float], list[float]]:
    calm = _times(url, token, requests)
    with attack(url, number, engine):
        return calm, _times(url, token, requests)


def _budget(name: str, pairs: Pairs) -> Budget:
    calm, hostile = zip(*(_percentiles(pair, 99) for pair in pairs), strict=True)
    where = "" if name == ALONE else f", behind {name}"
    what = f"99th percentile with hostile connections, relative to without{where}"
    return Budget(what, ratio(hostile, calm), at_most=2)


def _rows(name: str, pairs: Pairs, number: int) -> Iterator[dict[str, object]]:
    for at, connections in enumerate((0, number)):
        figures = {
            f"{label}, ms": round(statistics.median(_percentiles(one, p)[at] for one in pairs), 2)
            for label, p in (("median", 50), ("95th percentile", 95), ("99th percentile", 99))
        }
        yield {"in front": name, "hostile connections": connections} | figures


@contextmanager
def attack(url: str, number: int, engine: Engine) -> Iterator[None]:
    """Hold hostile connections in another process during the block."""
    log = engine.home / f"attackers-{next(_folders)}.log"
    command = [sys.executable, "-m", "benchmarks.attackers", url, str(number), ATTACKER]
    with program(command, {}, log):
        wait_until(
            lambda: log.exists() and "All connections" in log.read_text(),
            f"see {log}: the attackers did not connect",
        )
        yield


def _times(url: str, token: str, requests: int) -> list[float]:
    """Send requests through several clients, and return the milliseconds of each.

    Raises:
      RuntimeError: A request failed.
    """
    each = requests // len(CLIENTS)
    with ThreadPoolExecutor(len(CLIENTS)) as pool:
        portions = pool.map(lambda address: _portion(url, token, each, address), CLIENTS)
        return [milliseconds for portion in portions for milliseconds in portion]


def _portion(url: str, token: str, requests: int, address: str) -> list[float]:
    at, times = urlsplit(url), []
    headers = {"Authorization": f"Bearer {token}"}
    for number in range(requests):
        begun = time.perf_counter()
        if number % PER_CONNECTION == 0:
            connection = http.client.HTTPConnection(at.hostname or "", at.port, 30, (address, 0))
        connection.request("GET", PATH, headers=headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"an honest request was answered with {answer.status}")
        times.append((time.perf_counter() - begun) * 1000)
        if number % PER_CONNECTION == PER_CONNECTION - 1:
            connection.close()
    return times


def _percentiles(pair: tuple[list[float], list[float]], percent: int) -> tuple[float, float]:
    """Return a percentile of the requests without the attack, and of those with it."""
    calm, hostile = (
        statistics.quantiles(times, n=100, method="inclusive")[percent - 1] for times in pair
    )
    return calm, hostile
