"""A network at its worst: proxies before the servers that lose what they choose, and cut the
connection there.
"""

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
    """The connection ends here, and what was about to be passed on is lost."""


class Hang(Exception):
    """Nothing is passed on any more, and nobody is told."""


@dataclass
class Losses:
    """What a proxy loses: each message that matches, with this probability, and the connection with
    it.

    Parameters:
      matches: Whether a message may be lost.
      rate: The share of those that is lost.
      hanging: The share of the lost after which the connection stays open in silence.
      most: How many are lost at most; after that the network is sound.
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
        """Raises `Cut` or `Hang` if this message is to be lost."""
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
    """Listens on a port of its own while it is entered, and passes on to a Unix socket what it does
    not lose.

    Parameters:
      server: The path of the server's socket.
      frames: Splits what has come into whole messages; takes and shortens the buffer.
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
    """Whatever the server says."""
    return direction == "reply"


def redis_proxy(url: str, losses: Losses) -> Proxy:
    """Before a Redis on a Unix socket. A reply is what one read brings."""
    return Proxy(unquote(urlsplit(url).path), losses, _whatever_came)


def redis_url(proxy: Proxy) -> str:
    """How the engine reaches it."""
    return f"redis://127.0.0.1:{proxy.port}/0"


def _whatever_came(direction: Direction, buffer: bytearray, begun: list[bool]) -> Iterator[bytes]:
    came = bytes(buffer)
    buffer.clear()
    yield came


# PostgreSQL
# --------------------------------------------------------------------------------------------------


def commit_done(direction: Direction, message: bytes) -> bool:
    """The server's word that a transaction is committed: it is, and nobody learns of it."""
    return direction == "reply" and message[:1] == b"C" and message[5:] == b"COMMIT\0"


def commit_wanted(direction: Direction, message: bytes) -> bool:
    """The client's wish to commit: the transaction is rolled back, and nobody learns of that
    either.
    """
    return direction == "request" and message[:1] == b"Q" and message[5:] == b"COMMIT\0"


def statement_done(direction: Direction, message: bytes) -> bool:
    """The end of any statement; of one outside a transaction, its commit."""
    return direction == "reply" and message[:1] == b"C"


def postgres_proxy(url: str, losses: Losses) -> Proxy:
    """Before a PostgreSQL on a Unix socket, message by message."""
    folder = parse_qs(urlsplit(url).query)["host"][0]
    return Proxy(f"{folder}/.s.PGSQL.5432", losses, _messages)


def postgres_url(url: str, proxy: Proxy) -> str:
    """How the engine reaches the same database through it."""
    database = urlsplit(url).path
    return (
        f"postgresql://postgres@127.0.0.1:{proxy.port}{database}?sslmode=disable&gssencmode=disable"
    )


def _messages(direction: Direction, buffer: bytearray, begun: list[bool]) -> Iterator[bytes]:
    """A type and a length that counts itself
    (https://www.postgresql.org/docs/current/protocol-message-formats.html).

    The client's first message has no type.
    """
    while True:
        typed = 0 if direction == "request" and not begun[0] else 1
        if len(buffer) < typed + 4:
            return
        whole = typed + int.from_bytes(buffer[typed : typed + 4])
        if len(buffer) < whole:
            return
        begun[0] = True
        message = bytes(buffer[:whole])
        del buffer[:whole]
        yield message
