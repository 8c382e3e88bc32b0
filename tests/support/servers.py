"""Real servers for tests that stop, kill and flush them.

These are the embedded servers, in a folder of their own.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Self
from unittest.mock import patch

from core.embedded import postgres
from core.embedded.daemon import Daemon
from core.embedded.locks import private_folder
from core.embedded.postgres import Postgres
from core.embedded.valkey import Valkey
from support.waiting import until

QUICK: Mapping[str, str] = MappingProxyType(
    {"fsync": "off", "full_page_writes": "off", "min_wal_size": "32MB", "max_wal_size": "128MB"}
)
"""Options of PostgreSQL whose data survive the death of all processes, but no power failure."""

MEMORY, MIN_MEMORY_BYTES = "/dev/shm", 4 * 2**30


def folder_for_servers() -> Path:
    """Create a folder with a short path: sockets with a long one are elsewhere at every start.

    It is in memory where there is enough. A database has hundreds of files, and each test has a
    database.
    """
    in_memory = Path(MEMORY).exists() and shutil.disk_usage(MEMORY).free > MIN_MEMORY_BYTES
    return Path(tempfile.mkdtemp(prefix="polling-", dir=MEMORY if in_memory else "/tmp"))


def started_with(given: Mapping[str, str] = QUICK) -> AbstractContextManager[object]:
    """Start PostgreSQL with these options during the block."""
    return patch.dict(postgres._OPTIONS, given)


@dataclass
class Server:
    """A server that keeps its URL and its data after a stop or a crash.

    Attributes:
      url: The URL of the server after its last start.
      options: Options of PostgreSQL.
    """

    program: Postgres | Valkey
    daemon: Daemon
    pid_file: Path
    url: str = ""
    options: Mapping[str, str] = field(default_factory=lambda: QUICK)

    def start(self) -> str:
        """Start the server if it is stopped; return its URL when it answers."""
        with started_with(self.options):
            self.url = self.program.start()
        return self.url

    def stop(self) -> None:
        """Stop the server as an administrator does."""
        self.program.stop()

    @property
    def pid(self) -> int:
        """The id of its first process, while the server runs."""
        return int(self.pid_file.read_text().split()[0])

    def restart(self) -> None:
        """Stop the server and start it again."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """Kill the server, and return when all its processes have ended."""
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: not self.daemon.alive(), f"{self.daemon.name} is gone")


@dataclass
class Servers:
    """PostgreSQL and Valkey.

    Args:
      options: Options of PostgreSQL. Default: `QUICK`.
    """

    options: Mapping[str, str] = field(default_factory=lambda: QUICK)

    home: Path = field(default_factory=folder_for_servers)

    def __post_init__(self) -> None:
        folder = private_folder(self.home / "embedded")
        self.postgres = Server(
            Postgres(folder),
            Daemon("PostgreSQL", folder, "postgres"),
            folder / "postgres" / "postmaster.pid",
            options=self.options,
        )
        self.valkey = Server(
            Valkey(folder), Daemon("Valkey", folder, "valkey"), folder / "valkey" / "valkey.pid"
        )

    def start(self) -> Self:
        """Start the servers that are stopped."""
        self.postgres.start()
        self.valkey.start()
        return self

    def close(self) -> None:
        """Kill both servers, and delete their data."""
        for server in (self.postgres, self.valkey):
            if server.daemon.alive():
                server.kill()
        shutil.rmtree(self.home)
