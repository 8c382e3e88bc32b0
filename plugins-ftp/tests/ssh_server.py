"""An SFTP server of asyncssh in a thread, for logins that OpenSSH needs root rights to check."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

USERNAME, PASSWORD = "someone", "correct-horse-battery"


Answer = Callable[[int, bytes, bytes], bytes]
"""Returns the bytes to send for a request: its type, its id and its fields."""


class RawSession(asyncssh.SSHServerSession[bytes]):
    """A session that sends the answers of a test."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._buffer = b""

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._buffer += data
        while (end := 4 + int.from_bytes(self._buffer[:4], "big")) <= len(self._buffer):
            packet, self._buffer = self._buffer[4:end], self._buffer[end:]
            if reply := self._answer(packet[0], packet[1:5], packet[5:]):
                self._channel.write(reply)
            if len(self._buffer) < 4:
                return


@dataclass
class SshServer:
    """A running server, and the host keys and logins that it has.

    Attributes:
      key: The host key.
      connections: The open connections.
      limit: The number of connections that it allows.
    """

    home: Path
    key: asyncssh.SSHKey
    loop: asyncio.AbstractEventLoop
    port: int = 0
    limit: int = 100
    logins: list[str] = field(default_factory=list)
    connections: set[asyncssh.SSHServerConnection] = field(default_factory=set)
    credentials: dict[str, str] = field(
        default_factory=lambda: {"username": USERNAME, "password": PASSWORD}
    )

    @property
    def fingerprint(self) -> str:
        return self.key.get_fingerprint()

    @property
    def config(self) -> dict[str, Any]:
        return {
            "protocol": "sftp", "host": "127.0.0.1", "port": self.port, "timeout_seconds": 5,
            "host_key": self.fingerprint,
        }  # fmt: skip

    def drop_connections(self) -> None:
        done = threading.Event()

        def close() -> None:
            for connection in list(self.connections):
                connection.abort()
            done.set()

        self.loop.call_soon_threadsafe(close)
        assert done.wait(5)


@contextmanager
def serve_ssh(  # noqa: C901  the class of the server is within, so that it sees the options
    home: Path,
    *,
    methods: tuple[str, ...] = ("password",),
    user_key: asyncssh.SSHKey | None = None,
    sftp: type[asyncssh.SFTPServer] = asyncssh.SFTPServer,
    answer: Answer | None = None,
    keys: tuple[asyncssh.SSHKey, ...] = (),
    authority: asyncssh.SSHKey | None = None,
    **options: Any,
) -> Iterator[SshServer]:
    """Run a server over a folder.

    Args:
      home: The folder.
      methods: The ways to log in; each one is enough.
      user_key: The key of the user.
      sftp: The server's class.
      answer: Answers the requests in place of `sftp`.
      keys: Further host keys.
      authority: Signs the host key.
      options: Further options of asyncssh.
    """
    loop = asyncio.new_event_loop()
    served = SshServer(home, asyncssh.generate_private_key("ssh-ed25519"), loop)
    host_keys: list[Any] = [served.key, *keys]
    if authority is not None:
        signed = authority.generate_host_certificate(served.key, "host", principals=["127.0.0.1"])
        host_keys[0] = (served.key, signed)

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            self.conn = conn
            served.connections.add(conn)

        def session_requested(self) -> Any:
            if answer is None:
                return False
            return self.conn.create_server_channel(encoding=None), RawSession(answer)

        def connection_lost(self, exc: Exception | None) -> None:
            served.connections.discard(self.conn)

        def auth_completed(self) -> None:
            if len(served.connections) > served.limit:
                self.conn.disconnect(asyncssh.DISC_TOO_MANY_CONNECTIONS, "too many connections")
            served.logins.append(self.conn.get_extra_info("username"))

        def password_auth_supported(self) -> bool:
            return "password" in methods

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USERNAME, PASSWORD)

        def kbdint_auth_supported(self) -> bool:
            return "keyboard-interactive" in methods

        def get_kbdint_challenge(self, *_: Any) -> Any:
            return "", "", "en", [("One-time code or password: ", False)]

        def validate_kbdint_response(self, username: str, responses: Any) -> bool:
            return (username, *responses) == (USERNAME, PASSWORD)

        def public_key_auth_supported(self) -> bool:
            return "publickey" in methods

        def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
            return user_key is not None and key == user_key.convert_to_public()

        def connection_requested(self, *_: Any) -> bool:
            return True

    async def start() -> asyncssh.SSHAcceptor:
        return await asyncssh.create_server(
            Server, "127.0.0.1", 0, server_host_keys=host_keys,
            sftp_factory=None if answer else lambda channel: sftp(channel, chroot=bytes(home)),
            **options,
        )  # fmt: skip

    acceptor = loop.run_until_complete(start())
    served.port = acceptor.get_port()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def stop() -> None:
        acceptor.close()
        for connection in list(served.connections):
            connection.abort()
        await acceptor.wait_closed()
        await asyncio.sleep(0)  # the loop closes the sockets of aborted connections
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    try:
        yield served
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def cutting(target: int, after: int) -> Iterator[int]:
    """Run a relay to a port. It cuts its first connection after some bytes of the server."""
    cuts = iter([after])

    def pump(source: socket.socket, sink: socket.socket, left: int | None) -> None:
        with suppress(OSError):
            while data := source.recv(16_384):
                sink.sendall(data[:left])
                if left is not None and (left := left - len(data)) <= 0:
                    break
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def relay(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", target)) as server:
            back = threading.Thread(target=pump, args=(server, client, next(cuts, None)))
            back.start()
            pump(client, server, None)
            back.join()

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                relays.append(threading.Thread(target=relay, args=(listener.accept()[0],)))
                relays[-1].start()

    relays: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for thread in (accepting, *relays):
            thread.join(10)
