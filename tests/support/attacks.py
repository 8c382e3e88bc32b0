"""Clients that occupy a server: silent connections, half a request, or nobody who reads."""

from __future__ import annotations

import resource
import selectors
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from support.waiting import until

ATTACKER = "127.0.0.66"
"""The address from which attackers connect, where the system has it."""

SILENT = b""
HALF_HEADER = b"GET /v1/integrations HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
HALF_BODY = (
    b"POST /v1/user-integrations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b'Content-Length: 1000000\r\n\r\n{"integration_domain": "'
)


class Attackers:
    """Open connections of an attacker.

    Args:
      url: The address of the server.
      address: The address of the attacker.
    """

    def __init__(self, url: str, address: str = ATTACKER) -> None:
        parts = urlsplit(url)
        self._at = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._address = address
        self.sockets: list[socket.socket] = []

    def open(self, count: int, beginning: bytes) -> None:
        """Open connections, and send the beginning of a request through each."""
        for _ in range(count):
            with suppress(OSError):  # the server may refuse or close it: that is its defence
                self.sockets.append(one := self.connect())
                one.sendall(beginning)

    def connect(self) -> socket.socket:
        try:
            return socket.create_connection(self._at, timeout=5, source_address=(self._address, 0))
        except OSError as error:
            if error.errno != 99:  # EADDRNOTAVAIL: not on this system
                raise
            return socket.create_connection(self._at, timeout=5)

    def open_ones(self) -> int:
        """Count the connections that the server has not closed, reading what it sent."""
        with selectors.DefaultSelector() as selector:
            for one in self.sockets:
                selector.register(one, selectors.EVENT_READ)
            for key, _ in selector.select(0):
                with suppress(OSError):
                    if key.fileobj.recv(65_536):  # type: ignore[union-attr]
                        continue
                self.sockets.remove(key.fileobj)  # type: ignore[arg-type]
                key.fileobj.close()  # type: ignore[union-attr]
        return len(self.sockets)

    def wait_until_closed(self, seconds: float) -> None:
        """Wait until the server has closed all connections."""
        until(lambda: not self.open_ones(), "the server closes the connections", seconds)

    def close(self) -> None:
        for one in self.sockets:
            one.close()
        self.sockets.clear()


@contextmanager
def attacking(url: str, address: str = ATTACKER) -> Iterator[Attackers]:
    """Yield attackers, and close their connections at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 8_192:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(8_192, hard), hard))
    attackers = Attackers(url, address)
    try:
        yield attackers
    finally:
        attackers.close()
