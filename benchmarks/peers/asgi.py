"""Bare uvicorn with its defaults.

`python -m benchmarks.peers.asgi small` serves an application that sends one small response.
`python -m benchmarks.peers.asgi site` serves the API and the dashboard, as `polling serve` does.
The port is free, and is printed.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from benchmarks.engine import Engine
from benchmarks.processes import program, wait_until

BODY = b'{"status":"ok","checks":{}}'
"""The body of the engine's response to a request for its liveness."""


async def small(scope: Any, _: Any, send: Any) -> None:
    """Send the response, and read nothing."""
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the port."""
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


def _serve(app: Any) -> None:
    # uvicorn creates the socket itself: asyncio then sets TCP_NODELAY for its connections.
    config = uvicorn.Config(app, port=0, log_level="warning", access_log=False)
    _Server(config).run()


@contextmanager
def served(engine: Engine, name: str) -> Iterator[str]:
    """Serve an application in a process of its own, and yield its address."""
    log = engine.home / f"{name}.log"
    log.unlink(missing_ok=True)
    with program([sys.executable, "-m", __name__, name], engine.environment, log):
        wait_until(
            lambda: log.exists() and log.read_text().strip().isdigit(),
            f"see {log}: bare uvicorn did not start",
        )
        yield f"http://127.0.0.1:{log.read_text().strip()}"


def main() -> None:
    """Serve the application that the command line names."""
    if sys.argv[1] == "small":
        _serve(small)
        return
    from core.cli import session
    from core.dashboard.app import Site
    from core.rest.app import build

    with session.backend(connections=24) as backend:
        _serve(Site(build(backend)))


if __name__ == "__main__":
    main()
