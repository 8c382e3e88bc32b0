"""An SFTP server of asyncssh in a thread, for logins that OpenSSH needs root rights to check."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

USERNAME, PASSWORD = "someone", "correct-horse-battery"


@dataclass
class SshServer:
    """A running server, and the host keys and logins that it has.

    Attributes:
      key: The host key.
      methods: The ways to log in that it accepts, and needs all of.
      connections: The open connections.
    """

    home: Path
    key: asyncssh.SSHKey
    loop: asyncio.AbstractEventLoop
    port: int = 0
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
    **options: Any,
) -> Iterator[SshServer]:
    """Run a server over a folder. It asks for every one of `methods`, one after another."""
    loop = asyncio.new_event_loop()
    served = SshServer(home, asyncssh.generate_private_key("ssh-ed25519"), loop)

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            self.conn = conn
            served.connections.add(conn)

        def connection_lost(self, exc: Exception | None) -> None:
            served.connections.discard(self.conn)

        def auth_completed(self) -> None:
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
            Server, "127.0.0.1", 0, server_host_keys=[served.key],
            sftp_factory=lambda channel: sftp(channel, chroot=bytes(home)), **options,
        )  # fmt: skip

    acceptor = loop.run_until_complete(start())
    served.port = acceptor.get_port()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def stop() -> None:
        acceptor.close()
        for connection in list(served.connections):
            connection.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    try:
        yield served
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
