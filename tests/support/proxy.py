"""A faulty network: proxies that lose messages to and from the servers, and cut connections."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

Direction = Literal["request", "reply"]

CHUNK = 65_536


class Cut(Exception):
    """The message is lost, and the proxy closes the connection."""


class Hang(Exception):
    """The message is lost, and the connection stays open but silent."""


@dataclass
class Losses:
    """The messages that a proxy loses; each loss also ends the connection.

    Args:
      matches: Returns True if a message may be lost.
      rate: The share of matching messages that are lost.
      hanging: The share of losses after which the connection stays open but silent. Default: 0.
      most: The maximum number of losses; after them, no message is lost.
      seed: The seed of the random choices.
    """

    matches: Callable[[Direction, bytes], bool]
    rate: float
    hanging: float = 0.0
    most: int = 1_000_000
    seed: int = 0
    lost: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def __call__(self, direction: Direction, message: bytes) -> None:
        """Raise `Cut` or `Hang` if the proxy must lose this message."""
        with self._lock:
            if (
                self.lost >= self.most
                or not self.matches(direction, message)
                or self._random.random() >= self.rate
            ):
                return
            self.lost += 1
            raise Hang if self._random.random() < self.hanging else Cut


class Proxy:
    """A proxy from a TCP port to a Unix socket, which runs during the block.

    Args:
      server: The path of the server's socket.
      losses: The messages that the proxy loses.
      frames: Splits the buffer into complete messages, and removes them from the buffer.
    """

    def __init__(
        self,
        server: str,
        losses: Losses,
        frames: Callable[[Direction, bytearray, list[bool]], Iterator[bytes]],
    ) -> None:
        self._server = server
        self._losses = losses
        self._frames = frames
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            # Each message is sent alone: without this, each reply would wait 40 ms for another one.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:
                client.close()
                continue
            self._open |= {client, server}
            for direction, source, target in (
                ("request", client, server),
                ("reply", server, client),
            ):
                threading.Thread(
                    target=self._pass_on, args=(direction, source, target), daemon=True
                ).start()

    def _pass_on(self, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        buffer, begun = bytearray(), [False]
        with suppress(OSError, Cut):
            while data := source.recv(CHUNK):
                buffer += data
                try:
                    for message in self._frames(direction, buffer, begun):
                        self._losses(direction, message)
                        target.sendall(message)
                except Hang:
                    while source.recv(CHUNK):
                        pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self._open.discard(end)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


# Redis
# --------------------------------------------------------------------------------------------------


def any_reply(direction: Direction, message: bytes) -> bool:
    """Match every reply of the server."""
    return direction == "reply"


def redis_proxy(url: str, losses: Losses) -> Proxy:
    """Create a proxy for a Redis on a Unix socket; each read counts as one message."""
    return Proxy(unquote(urlsplit(url).path), losses, _as_read)


def redis_url(proxy: Proxy) -> str:
    """Return the URL of Redis through the proxy."""
    return f"redis://127.0.0.1:{proxy.port}/0"


def _as_read(direction: Direction, buffer: bytearray, begun: list[bool]) -> Iterator[bytes]:
    came = bytes(buffer)
    buffer.clear()
    yield came


# PostgreSQL
# --------------------------------------------------------------------------------------------------


def commit_done(direction: Direction, message: bytes) -> bool:
    """Match the reply to COMMIT: the transaction is committed, but the client does not know."""
    return direction == "reply" and message[:1] == b"C" and message[5:] == b"COMMIT\0"


def commit_wanted(direction: Direction, message: bytes) -> bool:
    """Match COMMIT: the transaction is rolled back, but the client does not know."""
    return direction == "request" and message[:1] == b"Q" and message[5:] == b"COMMIT\0"


def statement_done(direction: Direction, message: bytes) -> bool:
    """Match the reply to any statement; outside of a transaction, this is its commit."""
    return direction == "reply" and message[:1] == b"C"


def postgres_proxy(url: str, losses: Losses) -> Proxy:
    """Create a proxy for a PostgreSQL on a Unix socket; it handles protocol messages."""
    folder = parse_qs(urlsplit(url).query)["host"][0]
    return Proxy(f"{folder}/.s.PGSQL.5432", losses, _messages)


def postgres_url(url: str, proxy: Proxy) -> str:
    """Return the URL of the same database through the proxy."""
    database = urlsplit(url).path
    return (
        f"postgresql://postgres@127.0.0.1:{proxy.port}{database}?sslmode=disable&gssencmode=disable"
    )


def _messages(direction: Direction, buffer: bytearray, begun: list[bool]) -> Iterator[bytes]:
    """Split the buffer into messages of the PostgreSQL protocol.

    A message starts with its type and a length that includes itself
    (https://www.postgresql.org/docs/current/protocol-message-formats.html). The client's first
    message has no type.
    """
    while True:
        typed = 0 if direction == "request" and not begun[0] else 1
        if len(buffer) < typed + 4:
            return
        size = typed + int.from_bytes(buffer[typed : typed + 4])
        if len(buffer) < size:
            return
        begun[0] = True
        message = bytes(buffer[:size])
        del buffer[:size]
        yield message
