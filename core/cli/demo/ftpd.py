"""The FTP server of the demo: `python -m core.cli.demo.ftpd DIRECTORY`.

It reads the password from its standard input, prints its port, and ends when its standard input
does: with the demo, however that ends. It serves on the loopback interface alone, and nothing can
be written.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from core.cli.demo.files import refusal
from core.cli.demo.server import HOST, USERNAME


def main() -> None:
    """Serve until standard input ends."""
    password = sys.stdin.readline().strip()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    server = _server(Path(sys.argv[1]), password)
    sys.stdout.write(f"{server.address[1]}\n")
    sys.stdout.flush()
    server.serve_forever(handle_exit=False)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


def _server(root: Path, password: str) -> Any:
    # On Python 3.11, pyftpdlib uses the standard library's asyncore.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.filesystems import AbstractedFS
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.servers import FTPServer

    class Files(AbstractedFS):  # type: ignore[misc]
        """Shows what can be served, and nothing else."""

        def listdir(self, path: str) -> list[str]:
            return [found.name for found in Path(path).iterdir() if refusal(root, found) is None]

    class Handler(FTPHandler):  # type: ignore[misc]
        """Names go over the wire as the bytes that they are."""

        authorizer = DummyAuthorizer()
        abstracted_fs = Files
        unicode_errors = "surrogateescape"

        def push(self, data: str) -> None:
            super(FTPHandler, self).push(data.encode(self.encoding, self.unicode_errors))

    logging.basicConfig(level=logging.ERROR)
    Handler.authorizer.add_user(USERNAME, password, str(root), perm="elr")
    return FTPServer((HOST, 0), Handler)


if __name__ == "__main__":
    main()
