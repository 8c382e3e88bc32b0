"""A service with latency, for dlt and the engine: pages of a hundred ids, and single items.

`python -m benchmarks.source PAGES LATENCY` prints its port. It answers each request after the
latency, for any number of concurrent requests. It is one process without a framework. A request
takes some 50 microseconds of CPU, so the service never bounds the measurement.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.processes import ROOT

ITEMS = 100
TEXT = "Text somebody wrote to somebody else. " * 12


class Service(asyncio.Protocol):
    """A minimal HTTP/1.1 server: GET, keep-alive, JSON."""

    def __init__(self, pages: int, latency: float) -> None:
        self._pages, self._latency = pages, latency
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._pending = (self._pending + data).split(b"\r\n\r\n")
        for request in requests:
            path = request.split(b" ", 2)[1].decode()
            asyncio.get_running_loop().call_later(
                self._latency, self._transport.write, self._answer(path)
            )

    def _answer(self, path: str) -> bytes:
        kind, _, number = path.strip("/").partition("/")
        body = json.dumps(self._page(int(number)) if kind == "pages" else item(number)).encode()
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )

    def _page(self, number: int) -> dict[str, object]:
        following = number + 1 if number + 1 < self._pages else None
        return {"ids": [f"{number}-{index}" for index in range(ITEMS)], "next": following}


def item(id: str) -> dict[str, object]:
    """Return one item of the service."""
    return {
        "id": id,
        "name": f"Item {id}",
        "created": "2026-01-02T03:04:05+00:00",
        "text": f"{id} {TEXT}",
    }


@contextmanager
def service(pages: int, latency: float) -> Iterator[str]:
    """Run the service in a separate process, and yield its URL."""
    arguments = [sys.executable, "-m", "benchmarks.source", str(pages), str(latency)]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(started.stdout.readline())}"
        finally:
            started.terminate()


async def serve(pages: int, latency: float) -> None:
    """Serve until the process is terminated."""
    server = await asyncio.get_running_loop().create_server(
        lambda: Service(pages, latency), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
