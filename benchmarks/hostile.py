"""The response times of the API with 2,000 hostile connections, and without them.

`polling serve` runs on its own, without a proxy. The hostile connections have no token: they send
nothing, half a header or half a body, and come back when the server closes them
(`benchmarks/attackers.py`). Honest clients read a list at the same time, and open a new connection
for every tenth request.
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
from benchmarks.readers import served
from benchmarks.report import Budget, Options, Report, ratio
from core.service import tokens

HOSTILE = 2_000
CLIENTS = 4
PER_CONNECTION = 10
PATH = "/v1/user-integrations?limit=10"

_logs = count(1)


def run(bed: Testbed, options: Options) -> Report:
    """Measure the 99th percentile of honest requests with the attack and without."""
    number, requests = options.size(HOSTILE, 50), options.size(4_000, 80)
    with Engine(bed) as engine, served(engine) as url:
        token = tokens.create(engine.conn, user_id=None).secret
        for _ in range(20):
            engine.account("hello-world")
        _times(url, token, requests // 4)  # opens the server's connections to PostgreSQL

        def attacked() -> list[float]:
            with attack(url, number, engine):
                return _times(url, token, requests)

        pairs = [(_times(url, token, requests), attacked()) for _ in range(options.rounds)]
    calm = [_percentile(times, 99) for times, _ in pairs]
    hostile = [_percentile(times, 99) for _, times in pairs]
    what = "99th percentile with hostile connections, relative to without"
    rows = [
        {"hostile connections": connections}
        | {
            f"{name}, ms": round(statistics.median(_percentile(one, p) for one in all_times), 2)
            for name, p in (("median", 50), ("95th percentile", 95), ("99th percentile", 99))
        }
        for connections, all_times in (
            (0, [times for times, _ in pairs]),
            (number, [times for _, times in pairs]),
        )
    ]
    return Report(
        "hostile",
        "ms",
        hostile,
        calm,
        "the same requests without hostile connections",
        [Budget(what, ratio(hostile, calm), at_most=2)],
        {"response times": rows},
    )


@contextmanager
def attack(url: str, number: int, engine: Engine) -> Iterator[None]:
    """Hold hostile connections in another process during the block."""
    log = engine.home / f"attackers-{next(_logs)}.log"
    with program([sys.executable, "-m", "benchmarks.attackers", url, str(number)], {}, log):
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
    with ThreadPoolExecutor(CLIENTS) as pool:
        portions = pool.map(lambda _: _portion(url, token, requests // CLIENTS), range(CLIENTS))
        return [milliseconds for portion in portions for milliseconds in portion]


def _portion(url: str, token: str, requests: int) -> list[float]:
    at, times = urlsplit(url), []
    headers = {"Authorization": f"Bearer {token}"}
    for number in range(requests):
        begun = time.perf_counter()
        if number % PER_CONNECTION == 0:
            connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
        connection.request("GET", PATH, headers=headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"an honest request was answered with {answer.status}")
        times.append((time.perf_counter() - begun) * 1000)
        if number % PER_CONNECTION == PER_CONNECTION - 1:
            connection.close()
    return times


def _percentile(times: list[float], percent: int) -> float:
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1]
