"""Start the FTP server of the demo, which is a separate process."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from core.errors import ServerUnavailable, SettingsError

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Served:
    """The port and the login of the FTP server."""

    port: int
    username: str
    password: str


@contextmanager
def serving(directory: Path, log: Path, username: str, port: int | None = None) -> Iterator[Served]:
    """Serve a directory until the block ends.

    Args:
      directory: The directory to serve.
      log: The file for the server's output.
      username: The user name of the login.
      port: The preferred port. Default, and if it is taken: any free port.

    Raises:
      SettingsError: pyftpdlib is not installed.
      ServerUnavailable: The server does not start; the error names its log.
    """
    if find_spec("pyftpdlib") is None:
        raise SettingsError("demo-ftp-missing")
    password = secrets.token_urlsafe(16)
    with (
        log.open("wb") as log_file,
        subprocess.Popen(
            [sys.executable, "-m", "core.demo.ftpd", str(directory), username, str(port or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{password}\n".encode())
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise ServerUnavailable("demo-ftp-failed", log=log)
            yield Served(int(answer), username, password)
        finally:
            process.kill()
