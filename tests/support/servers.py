"""Real servers for tests that stop, kill and flush them: the embedded ones, in a home of their
own.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from core.embedded.daemon import Daemon
from core.embedded.locks import private_folder
from core.embedded.postgres import Postgres
from core.embedded.valkey import Valkey
from support.waiting import until


@dataclass
class Server:
    """One server. It keeps its URL and its data, however it ends.

    Attributes:
      url: Where it is, or was, reached.
    """

    program: Postgres | Valkey
    daemon: Daemon
    pid_file: Path
    url: str = ""

    def start(self) -> str:
        """Start it unless it runs; returns its URL once it answers."""
        self.url = self.program.start()
        return self.url

    def stop(self) -> None:
        """End it as an administrator does."""
        self.program.stop()

    @property
    def pid(self) -> int:
        """Of its first process, while it runs."""
        return int(self.pid_file.read_text().split()[0])

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """End it as a power failure does, and return when all its processes are gone."""
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: not self.daemon.alive(), f"{self.daemon.name} is gone")


@dataclass
class Servers:
    """PostgreSQL and Valkey in one folder, which goes with them."""

    # Short: a socket that does not fit into its folder would move at every start.
    home: Path = field(
        default_factory=lambda: Path(tempfile.mkdtemp(prefix="polling-", dir="/tmp"))
    )

    def __post_init__(self) -> None:
        folder = private_folder(self.home / "embedded")
        self.postgres = Server(
            Postgres(folder),
            Daemon("PostgreSQL", folder, "postgres"),
            folder / "postgres" / "postmaster.pid",
        )
        self.valkey = Server(
            Valkey(folder), Daemon("Valkey", folder, "valkey"), folder / "valkey" / "valkey.pid"
        )

    def start(self) -> Self:
        """Start what does not run."""
        self.postgres.start()
        self.valkey.start()
        return self

    def close(self) -> None:
        """End both, and forget their data."""
        for server in (self.postgres, self.valkey):
            if server.daemon.alive():
                server.kill()
        shutil.rmtree(self.home)
