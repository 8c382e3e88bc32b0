"""Readers of the API and the dashboard.

`python -m benchmarks.clients URL ADMIN_TOKEN READERS REST` reads until SIGTERM, and then prints its
measurements as JSON.

Each reader is a client with one connection. Most readers request accounts, content, a search and
runs. A tenth follow the change feed by long-poll. One in twenty watches a live page of the
dashboard. After each answer a reader pauses for REST seconds on average, between 0.5 and 1.5 times
REST. With 0 it never pauses. The module uses no framework, so that it takes little CPU beside the
measured server.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from benchmarks.processes import ROOT

WORDS = ("hello", "somebody wrote", "item 42", "nothing like this")
ASKED = (
    "/v1/user-integrations",
    "/v1/user-integration-content?limit=20",
    "/v1/user-integration-content?limit=20&q={words}",
    "/v1/user-integrations/{account}/runs",
    "/v1/integrations",
)
WATCHED = ("/", "/accounts", "/runs")
LONG_POLL = "/v1/changes?limit=100&wait=20"


@dataclass(slots=True)
class Seen:
    """The counts and times of all answers that the readers received."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    events: int = 0

    def data(self, lasted: float) -> dict[str, Any]:
        """Return the measurements for the benchmark."""
        ordered = sorted(self.seconds) or [0.0]
        errors = {
            status: number for status, number in self.statuses.items() if not status.startswith("2")
        }
        return {
            "requests": self.statuses.total(),
            "requests/s": round(self.statuses.total() / lasted, 1),
            "errors": errors,
            "median, ms": round(1000 * ordered[len(ordered) // 2], 1),
            "95th percentile, ms": round(1000 * ordered[int(len(ordered) * 0.95)], 1),
            "events": self.events,
        }


class Reader:
    """A client with one connection that it keeps open."""

    def __init__(self, url: str, token: str, session: str, rest: float, seen: Seen) -> None:
        self._host, self._token, self._rest, self._seen = urlsplit(url), token, rest, seen
        self._session = session
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def asks(self) -> None:
        """Request one listing after the other, for the first account."""
        await self._pause()  # spread the first requests
        account = json.loads(await self._get(ASKED[0]) or b'{"items": [{"id": null}]}')["items"][0][
            "id"
        ]
        while True:
            begun = time.perf_counter()
            path = random.choice(ASKED).format(words=quote(random.choice(WORDS)), account=account)
            if await self._get(path) is not None:
                self._seen.seconds.append(time.perf_counter() - begun)
            await self._pause()

    async def follows(self) -> None:
        """Follow the change feed, first the existing changes, then new ones."""
        after = ""
        await self._pause()
        while True:
            body = await self._get(LONG_POLL + after)
            if body is not None:
                after = f"&after={quote(json.loads(body)['cursor'])}"
            await self._pause()

    async def watches(self) -> None:
        """Watch a page of the dashboard, as a signed-in browser does."""
        await self._pause()
        while True:
            try:
                reader = await self._ask(random.choice(WATCHED), "text/event-stream")
                self._seen.statuses[await _status(reader)] += 1
                while line := await reader.readline():
                    self._seen.events += line.startswith(b"event: live")
            except OSError as error:
                self._seen.statuses[type(error).__name__] += 1
            self._streams = None
            await asyncio.sleep(1)

    async def _get(self, path: str) -> bytes | None:
        try:
            reader = await self._ask(path, "application/json")
            status = await _status(reader)
            body = await _body(reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            self._seen.statuses[type(error).__name__] += 1
            self._streams = None
            return None
        self._seen.statuses[
            status if status == "200" else f"{status} {path.partition('?')[0]} {body[:200]!r}"
        ] += 1
        return body if status == "200" else None

    async def _ask(self, path: str, accept: str) -> asyncio.StreamReader:
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                self._host.hostname, self._host.port, limit=2**24
            )
        reader, writer = self._streams
        writer.write(
            (
                f"GET {path} HTTP/1.1\r\nHost: {self._host.netloc}\r\nAccept: {accept}\r\n"
                f"Authorization: Bearer {self._token}\r\n"
                f"Cookie: {self._session}\r\n\r\n"
            ).encode()
        )
        await writer.drain()
        return reader

    async def _pause(self) -> None:
        await asyncio.sleep(self._rest * random.uniform(0.5, 1.5))


async def _status(reader: asyncio.StreamReader) -> str:
    line = await reader.readline()
    if not line:
        raise ConnectionResetError("closed")
    return line.split()[1].decode()


async def _body(reader: asyncio.StreamReader) -> bytes:
    length = 0
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return await reader.readexactly(length)


@contextmanager
def readers(url: str, token: str, number: int, rest: float) -> Iterator[dict[str, Any]]:
    """Run readers in a separate process during the block.

    After the block, the yielded dictionary holds their measurements.
    """
    seen: dict[str, Any] = {}
    arguments = [sys.executable, "-m", "benchmarks.clients", url, token, str(number), str(rest)]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        try:
            started.stdout.readline()  # they have started
            yield seen
        finally:
            started.terminate()
            seen.update(json.loads(started.stdout.readline() or "{}"))


def sign_in(url: str, token: str) -> str:
    """Sign in to the dashboard; return the cookie of the session."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("POST", "/sign-in", urlencode({"token": token}))
    cookie = connection.getresponse().getheader("Set-Cookie")
    connection.close()
    assert cookie is not None
    return cookie.partition(";")[0]


async def read(url: str, token: str, number: int, rest: float) -> None:
    """Run readers until SIGTERM, and print their measurements."""
    seen, ended, session = Seen(), asyncio.Event(), sign_in(url, token)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    habits = []
    for index in range(number):
        reader = Reader(url, token, session, rest, seen)
        habits.append(
            reader.watches()
            if index % 20 == 7
            else reader.follows()
            if index % 10 == 3
            else reader.asks()
        )
    begun, tasks = time.perf_counter(), [asyncio.ensure_future(habit) for habit in habits]
    print("reading", flush=True)
    await ended.wait()
    broken = [task for task in tasks if task.done()]
    seen.statuses.update(repr(task.exception()) for task in broken)
    print(json.dumps(seen.data(time.perf_counter() - begun)), flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(read(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
