"""A Valkey with a replica and a Sentinel on TCP ports, and a name whose address changes."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from core.embedded.valkey import _program
from support.fleet import send
from support.ports import free_port
from support.waiting import until

NAME = "engine"
PASSWORD = "it's a s3cret/@"
USER = "default"


class Replicated:
    """A master and its replica, both with a password.

    Args:
      folder: A folder for their files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs: dict[int, subprocess.Popen[bytes]] = {}
        self.master, self.replica, self.sentinel = (free_port() for _ in range(3))
        self._start(self.master)
        self._start(self.replica, "--replicaof", "127.0.0.1", str(self.master))
        until(lambda: self.info(self.replica)["master_link_status"] == "up", "it replicates")

    def watch(self) -> None:
        """Start a Sentinel with a password of its own."""
        config = self._folder / "sentinel.conf"
        config.write_text(
            f"port {self.sentinel}\nrequirepass of-sentinel\n"
            f"sentinel monitor {NAME} 127.0.0.1 {self.master} 1\n"
            f'sentinel auth-pass {NAME} "{PASSWORD}"\n'
            f"sentinel down-after-milliseconds {NAME} 1000\n"
            f"sentinel failover-timeout {NAME} 5000\n"
        )
        self._run(self.sentinel, [str(config), "--sentinel"])
        until(lambda: self._replicas() == 1, "the Sentinel knows the replica", 30)

    def client(self, port: int) -> redis.Redis:
        return redis.Redis(port=port, password=PASSWORD, socket_timeout=5)

    def lag(self, seconds: float) -> None:
        """Let the master work for some seconds while its replica receives nothing."""
        send(signal.SIGSTOP, self._programs[self.replica].pid)
        with self.client(self.master) as client:
            client.client_kill_filter(_type="replica")
        time.sleep(seconds)

    def fail_over(self, lag: float, *, by_hand: bool = False) -> None:
        """Kill the master, and promote the replica, which lacks the last seconds.

        Args:
          lag: The seconds that the replica lacks.
          by_hand: Promote it without a Sentinel.
        """
        self.lag(lag)
        self.kill(self.master)
        send(signal.SIGCONT, self._programs[self.replica].pid)
        if by_hand:
            with self.client(self.replica) as client:
                client.replicaof("NO", "ONE")
        until(lambda: self.info(self.replica)["role"] == "master", "the replica is promoted", 40)

    def promote(self, lag: float) -> None:
        """Promote the replica, which lacks the last seconds, as an administrator does.

        The old master becomes the replica of the new one.
        """
        self.lag(lag)
        with self.client(self.master) as client:
            client.replicaof("127.0.0.1", str(self.replica))
        send(signal.SIGCONT, self._programs[self.replica].pid)
        with self.client(self.replica) as client:
            client.replicaof("NO", "ONE")

    def kill(self, port: int) -> None:
        """Kill one server."""
        self._programs[port].kill()
        self._programs[port].wait()

    def close(self) -> None:
        """Kill all servers."""
        for program in self._programs.values():
            program.kill()
            program.wait()

    def info(self, port: int) -> dict[str, Any]:
        """Return the state of replication."""
        with self.client(port) as client:
            info: dict[str, Any] = client.info("replication")
            return info

    def _start(self, port: int, *options: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir()
        (folder / "valkey.conf").write_text(
            f'port {port}\nsave ""\nrepl-diskless-sync-delay 0\n'
            f'requirepass "{PASSWORD}"\nmasterauth "{PASSWORD}"\n'
        )
        self._run(port, [str(folder / "valkey.conf"), "--dir", str(folder), *options])
        with self.client(port) as client:
            until(lambda: _answers(client), "the server answers")

    def _run(self, port: int, options: Sequence[str]) -> None:
        self._programs[port] = subprocess.Popen(
            [str(_program()), *options], cwd=self._folder, stdout=subprocess.DEVNULL
        )

    def _replicas(self) -> int:
        try:
            with redis.Redis(port=self.sentinel, password="of-sentinel") as client:
                return len(client.execute_command("SENTINEL", "REPLICAS", NAME))
        except redis.ConnectionError:
            return 0


class ChangingName:
    """A name of one server, then of another: new connections reach the present one.

    Connections that are open stay with their server, as when the address of a name changes in DNS.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                threading.Thread(target=_connect, args=(client, server), daemon=True).start()


def _connect(client: socket.socket, server: socket.socket) -> None:
    with client, server:
        back = threading.Thread(target=_copy, args=(server, client), daemon=True)
        back.start()
        _copy(client, server)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
