"""The FTP server of the demo: `python -m core.demo.ftpd DIRECTORY USERNAME PORT`.

The server listens on this port, or on any free port if it is taken. It reads the password from
standard input and prints its port. It exits when its standard input closes, so it never outlives
the demo. It is read-only and listens only on the loopback interface.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from core.demo.files import refusal
from core.demo.server import HOST


def main() -> None:
    """Serve until standard input closes."""
    password = sys.stdin.readline().strip()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    root, username, port = sys.argv[1:]
    server = _server(Path(root), username, password, int(port))
    sys.stdout.write(f"{server.address[1]}\n")
    sys.stdout.flush()
    server.serve_forever(handle_exit=False)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


def _server(root: Path, username: str, password: str, port: int) -> Any:
    # On Python 3.11, pyftpdlib uses the deprecated asyncore of the standard library.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.filesystems import AbstractedFS
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.servers import FTPServer

    class Files(AbstractedFS):  # type: ignore[misc]
        """A file system that lists only files that the demo serves."""

        def listdir(self, path: str) -> list[str]:
            """Return the names in a directory."""
            return [entry.name for entry in Path(path).iterdir() if refusal(root, entry) is None]

    class Handler(FTPHandler):  # type: ignore[misc]
        """A handler that sends names as their original bytes."""

        authorizer = DummyAuthorizer()
        abstracted_fs = Files
        unicode_errors = "surrogateescape"

        def push(self, data: str) -> None:
            """Send a line."""
            super(FTPHandler, self).push(data.encode(self.encoding, self.unicode_errors))

    logging.basicConfig(level=logging.ERROR)
    Handler.authorizer.add_user(username, password, str(root), perm="elr")
    try:
        return FTPServer((HOST, port), Handler)
    except OSError:
        return FTPServer((HOST, 0), Handler)


if __name__ == "__main__":
    main()
