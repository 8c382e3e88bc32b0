"""A real FTP server in a thread, with a directory that the tests fill."""

from __future__ import annotations

import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.processes import (  # noqa: F401  fixtures
    deployment,
    make_fleet,
    own_servers,
    server_pair,
)

with warnings.catch_warnings():  # on Python 3.11, pyftpdlib uses the standard library's asyncore
    warnings.simplefilter("ignore", DeprecationWarning)
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.servers import FTPServer

USERNAME, PASSWORD = "someone", "correct-horse-battery"
MONTH = 30 * 24 * 3600
LIST_ONLY = ("MLSD", "MLST")


@dataclass
class Server:
    """The server's directory and config, and the commands that it received."""

    home: Path
    port: int
    handler: type[FTPHandler]
    commands: list[str]
    loop: IOLoop
    sessions: set[FTPHandler] = field(default_factory=set)
    host: str = "127.0.0.1"
    times: Iterator[int] = field(default_factory=lambda: count(int(time.time()) - MONTH, 60))
    credentials: dict[str, str] = field(
        default_factory=lambda: {"username": USERNAME, "password": PASSWORD}
    )

    @property
    def config(self) -> dict[str, Any]:
        return {"host": self.host, "port": self.port, "timeout_seconds": 5}

    def write(self, path: str, content: bytes = b"content", at: float | None = None) -> Path:
        """Write a file. It is a month old, and each one is a minute younger than the one before."""
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        modified = next(self.times) if at is None else at
        os.utime(file, (modified, modified))
        return file

    def drop_connections(self) -> None:
        """Close all control connections, as a server does after an idle timeout."""
        done = threading.Event()

        def close() -> None:
            for session in list(self.sessions):
                session.close()
            done.set()

        self.loop.call_later(0, close)
        assert done.wait(5)

    def sent(self, command: str) -> list[str]:
        return [line for line in self.commands if line.split()[0] == command]


def start(home: Path, without: tuple[str, ...] = (), host: str = "127.0.0.1") -> Iterator[Server]:
    authorizer = DummyAuthorizer()
    authorizer.add_user(USERNAME, PASSWORD, str(home), perm="elr")
    loop, sessions, commands = IOLoop(), set[FTPHandler](), list[str]()

    class Handler(FTPHandler):
        unicode_errors = "surrogateescape"
        proto_cmds = {
            name: value for name, value in FTPHandler.proto_cmds.items() if name not in without
        }
        auth_failed_timeout = 0

        def on_connect(self) -> None:
            sessions.add(self)

        def on_disconnect(self) -> None:
            sessions.discard(self)

        def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
            commands.append(line)
            super().pre_process_command(line, cmd, arg)

        def push(self, data: str) -> None:
            super(FTPHandler, self).push(data.encode(self.encoding, self.unicode_errors))

    Handler.authorizer = authorizer
    server = FTPServer((host, 0), Handler, ioloop=loop)
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            loop.loop(timeout=0.01, blocking=False)
        server.close_all()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Server(home, server.address[1], Handler, commands, loop, sessions, host=host)
    finally:
        stopping.set()
        thread.join(10)


@pytest.fixture(params=[(), LIST_ONLY], ids=["MLSD", "LIST"])
def ftp_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Run the test twice: on a server with MLSD, and on one with LIST only."""
    yield from start(tmp_path, request.param)


@pytest.fixture
def facts_server(tmp_path: Path) -> Iterator[Server]:
    """A server with MLSD."""
    yield from start(tmp_path)


@pytest.fixture
def list_server(tmp_path: Path) -> Iterator[Server]:
    """A server with LIST, and without MLSD."""
    yield from start(tmp_path, LIST_ONLY)


@pytest.fixture
def nlst_server(tmp_path: Path) -> Iterator[Server]:
    """A server that lists names only."""
    yield from start(tmp_path, (*LIST_ONLY, "LIST"))


@pytest.fixture
def ipv6_server(tmp_path: Path) -> Iterator[Server]:
    """A server with MLSD at `::1`."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    yield from start(tmp_path, host="::1")
