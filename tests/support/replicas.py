"""A standby of PostgreSQL that misses the last transactions, and its promotion."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.servers import Servers


@dataclass(frozen=True)
class Replica:
    """A copy of the data of PostgreSQL, as of one moment.

    Args:
      servers: The servers. PostgreSQL is restarted for the copy.
    """

    servers: Servers

    def __post_init__(self) -> None:
        self.servers.postgres.stop()
        copy(self._data, self._copy)
        self.servers.postgres.start()

    @property
    def _data(self) -> Path:
        return self.servers.postgres.pid_file.parent

    @property
    def _copy(self) -> Path:
        return self._data.with_suffix(".replica")

    def promote(self) -> None:
        """Kill PostgreSQL, and continue with the copy. All later transactions are lost."""
        self.servers.postgres.kill()
        shutil.rmtree(self._data)
        copy(self._copy, self._data)
        self.servers.postgres.start()


def copy(source: Path, target: Path) -> None:
    """Copy a folder with its owners, as the server's user may be another one."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
