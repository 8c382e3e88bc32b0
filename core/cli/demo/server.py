"""The FTP server of the demo, a process of its own: `python -m core.cli.demo.server DIRECTORY`.

It reads the password from its standard input, prints its port, and ends when its standard input does: with the demo, however
that ends. It serves on the loopback interface alone, and nothing can be written.
"""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.cli.demo.files import refusal
from core.errors import ServerUnavailable, SettingsError

HOST = "127.0.0.1"
USERNAME = "demo"


@dataclass(frozen=True, slots=True)
class Served:
    """Where the server is, and how to log in."""

    port: int
    password: str


@contextmanager
def serving(directory: Path, log: Path) -> Iterator[Served]:
    """Serve a directory for as long as the block runs.

    Raises:
      SettingsError: pyftpdlib is not installed.
      ServerUnavailable: The server does not come up; its log is named.
    """
    _require_pyftpdlib()
    password = secrets.token_urlsafe(16)
    with (
        log.open("wb") as said,
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{password}\n".encode())
            process.stdin.flush()
            port = process.stdout.readline()
            if not port:
                raise ServerUnavailable("the FTP server of the demo does not start", f"Its log: {log}")
            yield Served(int(port), password)
        finally:
            process.kill()


def _require_pyftpdlib() -> None:
    from importlib.util import find_spec

    if find_spec("pyftpdlib") is None:
        raise SettingsError("the demo needs an FTP server", "Run: pip install 'integration-polling[demo]'")


def main() -> None:
    """Serve until standard input ends."""
    password = sys.stdin.readline().strip()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    server = _server(os.fsencode(sys.argv[1]), password)
    sys.stdout.write(f"{server.address[1]}\n")
    sys.stdout.flush()
    server.serve_forever(handle_exit=False)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


def _server(root: bytes, password: str) -> Any:
    with warnings.catch_warnings():  # on Python 3.11, pyftpdlib uses the standard library's asyncore
        warnings.simplefilter("ignore", DeprecationWarning)
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.filesystems import AbstractedFS
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.servers import FTPServer

    class Files(AbstractedFS):  # type: ignore[misc]
        """Shows what can be served, and nothing else."""

        def listdir(self, path: str) -> list[str]:
            return [name for name in os.listdir(path) if refusal(root, os.fsencode(os.path.join(path, name))) is None]

    class Handler(FTPHandler):  # type: ignore[misc]
        """Names go over the wire as the bytes that they are."""

        authorizer = DummyAuthorizer()
        abstracted_fs = Files
        unicode_errors = "surrogateescape"

        def push(self, data: str) -> None:
            super(FTPHandler, self).push(data.encode(self.encoding, self.unicode_errors))

    logging.basicConfig(level=logging.ERROR)
    Handler.authorizer.add_user(USERNAME, password, os.fsdecode(root), perm="elr")
    return FTPServer((HOST, 0), Handler)


if __name__ == "__main__":
    main()
