"""The command `sha256sum` of a server's shell, over SSH. It runs only if the account permits it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import asyncssh

from integration_polling_ftp.errors import Unsupported

MAX_OUTPUT_BYTES = 1024
"""The size of an output that is read. Only the hash and a dash are expected."""

_OUTPUT = re.compile(rb"(?P<digest>[0-9a-f]{64}) [ *]-\r?\n?")
_UNSAFE = re.compile(rb"[\\!\x00-\x1f\x7f]")
"""Bytes that shells treat differently within quotes."""


class _Output(asyncssh.SSHClientSession[bytes]):
    """Collects the output of a command, up to its bound."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.output = bytearray()
        self.status: int | None = None
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Keep the channel."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Keep the output, and ignore errors. A longer output ends the command."""
        if datatype is None and len(self.output) <= MAX_OUTPUT_BYTES:
            self.output += data[: MAX_OUTPUT_BYTES + 1]
            if len(self.output) > MAX_OUTPUT_BYTES and self._channel is not None:
                self._channel.abort()

    def exit_status_received(self, status: int) -> None:
        """Keep the status."""
        self.status = status

    def connection_lost(self, exc: Exception | None) -> None:
        """End the command."""
        if not self.ended.done():
            self.ended.set_result(None)


def command(path: bytes) -> bytes | None:
    """Return the command that hashes a file; None if no quotes protect its path in each shell.

    The shell opens the file. So the output does not repeat its name, and no name is an option.
    """
    if _UNSAFE.search(path) or not path.startswith(b"/"):
        return None
    return b"sha256sum <'" + path.replace(b"'", rb"'\''") + b"'"


async def sha256sum(connection: asyncssh.SSHClientConnection, path: bytes) -> str:
    """Return the SHA-256 of a file; empty if the shell prints something else.

    Raises:
      Unsupported: The server refuses to run commands.
    """
    line = command(path)
    if line is None:
        return ""
    made: Any
    try:
        made = await connection.create_session(_Output, line, encoding=None)  # type: ignore[arg-type]
    except asyncssh.ChannelOpenError as error:
        raise Unsupported(f"the server runs no commands: {error.reason}") from None
    session: _Output = made[1]
    try:
        made[0].write_eof()  # a program that reads its input would wait for ever
        await session.ended
    finally:
        made[0].abort()
    match = _OUTPUT.fullmatch(bytes(session.output))
    return match["digest"].decode() if match and session.status == 0 else ""
