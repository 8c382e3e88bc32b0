"""A proxy before a real FTP server, which cuts, stalls or resets its connections at chosen moments.

It rewrites the port in replies to PASV and EPSV, so that data connections pass through it, too. It
counts the commands.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Action = Literal["cut", "reset", "stall"]
Moment = Literal["listing", "file", "before data", "after data", "control"]
"""The moments of a fault.

In the middle of a listing or of a file; after the reply to PASV; after the last byte and before the
226; or before the reply to a command.
"""

STALL_SECONDS = 60.0


@dataclass
class Fault:
    """A fault.

    Attributes:
      moment: The moment.
      action: `cut` closes the connection, `reset` sends a RST, `stall` sends nothing more.
      only: Only transfers whose command contains this text. Default: all.
      times: The number of faults. Default: 1.
      skip: The number of such moments before the first fault. Default: 0.
      gap: The number of such moments between two faults. Default: 0.
    """

    moment: Moment
    action: Action
    only: str = ""
    times: int = 1
    skip: int = 0
    gap: int = 0

    def strikes(self, moment: Moment, command: str) -> bool:
        """Return True if the fault happens now."""
        if moment != self.moment or self.only not in command or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        self.skip = self.gap
        return True


@dataclass
class Proxy:
    """A running proxy.

    Attributes:
      port: Its port for control connections.
      commands: The number of commands that passed, by name.
      happened: The number of faults.
    """

    target: int
    fault: Fault | None
    latency: float = 0.0
    login_seconds: float = 0.0
    port: int = 0
    commands: Counter[str] = field(default_factory=Counter)
    happened: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def strikes(self, moment: Moment, command: str) -> bool:
        with self._lock:
            strikes = self.fault is not None and self.fault.strikes(moment, command)
            self.happened += strikes
        return strikes


@contextmanager
def proxied(
    target: int, fault: Fault | None = None, *, latency: float = 0.0, login_seconds: float = 0.0
) -> Iterator[Proxy]:
    """Run a proxy before the server at a port of this machine.

    Args:
      target: The port of the server.
      fault: The fault. Default: none.
      latency: Seconds that each reply and each block takes. Default: 0.
      login_seconds: Seconds that a login takes. Default: 0.
    """
    proxy = Proxy(target, fault, latency, login_seconds)
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy.port = server.getsockname()[1]
        _thread(_accept, server, lambda client: _Session(proxy, client).run())
        yield proxy


def _thread(run: Callable[..., object], *args: object) -> None:
    threading.Thread(target=run, args=args, daemon=True).start()


def _accept(server: socket.socket, serve: Callable[[socket.socket], object]) -> None:
    while True:
        try:
            client = server.accept()[0]
        except OSError:
            return
        _thread(serve, client)


class _Session:
    """One control connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy, self.client = proxy, client
        self.server = socket.create_connection(("127.0.0.1", proxy.target))
        self.command = ""
        self.waiting: list[str] = []
        self.after_data = False

    def run(self) -> None:
        _thread(self._commands)
        with self.server, self.client, suppress(OSError):
            self._replies()

    def _commands(self) -> None:
        with suppress(OSError), self.client.makefile("rb") as lines:
            for line in lines:
                command = line.decode("latin-1").rstrip("\r\n")
                verb = command.split(" ")[0]
                self.proxy.commands[verb] += 1
                if verb in ("RETR", "MLSD", "LIST", "NLST"):
                    self.command = command
                if verb == "USER" and self.proxy.login_seconds:
                    time.sleep(self.proxy.login_seconds)
                if self.proxy.latency:
                    time.sleep(self.proxy.latency / 2)
                if self.proxy.strikes("control", command):
                    self.strike(self.client)
                    return
                self.server.sendall(line)
        with suppress(OSError):
            self.server.shutdown(socket.SHUT_WR)

    def _replies(self) -> None:
        with self.server.makefile("rb") as lines:
            for line in lines:
                if self.proxy.latency:
                    time.sleep(self.proxy.latency / 2)
                sent = line
                if line[:4] in (b"227 ", b"229 "):
                    if self.proxy.strikes("before data", self.command):
                        self.strike(self.client)
                        return
                    sent = self._passive(line)
                if line[:1] == b"2" and line[:3] in (b"226", b"250") and self.after_data:
                    self.after_data = False
                    if self.proxy.strikes("after data", self.command):
                        self.strike(self.client)
                        return
                self.client.sendall(sent)

    def strike(self, connection: socket.socket) -> None:
        action = self.proxy.fault.action if self.proxy.fault else "cut"
        if action == "stall":
            time.sleep(STALL_SECONDS)
        if action == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            if action != "reset":
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _passive(self, line: bytes) -> bytes:
        """Offer a port of the proxy instead of the server's."""
        if line.startswith(b"227"):
            numbers = re.findall(rb"\d+", line[4:])
            port = int(numbers[4]) * 256 + int(numbers[5])
        else:
            found = re.search(rb"\|(\d+)\|\)", line)
            assert found is not None
            port = int(found[1])
        listener = socket.create_server(("127.0.0.1", 0))
        mine = listener.getsockname()[1]
        _thread(self._data, listener, port)
        if line.startswith(b"227"):
            return b"227 Entering Passive Mode (127,0,0,1,%d,%d).\r\n" % divmod(mine, 256)
        return b"229 Entering Extended Passive Mode (|||%d|)\r\n" % mine

    def _data(self, listener: socket.socket, port: int) -> None:
        listener.settimeout(20)
        with (
            listener,
            suppress(OSError),
            listener.accept()[0] as client,
            socket.create_connection(("127.0.0.1", port)) as server,
        ):
            self._pass(server, client)

    def _pass(self, server: socket.socket, client: socket.socket) -> None:
        is_first = True
        while block := server.recv(65536):
            if self.proxy.latency and is_first:
                time.sleep(self.proxy.latency / 2)
            is_first = False
            moment: Moment = "file" if self.command.startswith("RETR") else "listing"
            if self.proxy.strikes(moment, self.command):
                client.sendall(block[: len(block) // 2])
                self.strike(client)
                return
            client.sendall(block)
        self.after_data = True
