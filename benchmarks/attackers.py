"""A program that holds hostile connections: `python -m benchmarks.attackers URL COUNT ADDRESS`.

They come from ADDRESS. A third of them sends nothing, a third half a header, a third half a body.
The program opens a new connection for each that the server closes, and prints a line once all are
open.
"""

from __future__ import annotations

import resource
import selectors
import socket
import sys
import time
from contextlib import suppress
from itertools import cycle
from urllib.parse import urlsplit

BEGINNINGS = (
    b"",
    b"GET /v1/user-integrations HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    b"POST /v1/user-integrations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
)
PAUSE_SECONDS = 0.1
MAX_NEW = 100
"""Connections that are opened between two pauses."""


def main(url: str, count: int, address: str) -> None:
    """Hold connections until SIGTERM."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 100, hard), hard))
    at, beginnings = urlsplit(url), cycle(BEGINNINGS)
    with selectors.DefaultSelector() as selector:
        announced = False
        while True:
            for key, _ in selector.select(0):
                _drop(selector, key.fileobj)
            for _ in range(min(MAX_NEW, count - len(selector.get_map()))):
                with suppress(OSError):
                    one = socket.create_connection((at.hostname, at.port), 5, (address, 0))
                    one.sendall(next(beginnings))
                    selector.register(one, selectors.EVENT_READ)
            if not announced and len(selector.get_map()) >= count:
                announced = True
                print("All connections are open.", flush=True)
            time.sleep(PAUSE_SECONDS)


def _drop(selector: selectors.BaseSelector, one: object) -> None:
    """Read from a connection, and close it if the server has closed it."""
    assert isinstance(one, socket.socket)
    with suppress(OSError):
        if one.recv(65_536):
            return
    selector.unregister(one)
    one.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
