"""A base backup of PostgreSQL with an archive of its WAL, and a restore to a point in time."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg

from core.embedded.postgres import _install
from support.servers import Server
from support.waiting import until

RECOVERY = """
restore_command = 'cp {archive}/%f %p'
recovery_target_time = '{to}'
recovery_target_action = 'promote'
archive_mode = 'off'
"""
ARCHIVED = "SELECT last_archived_wal >= pg_walfile_name(%s) FROM pg_stat_archiver"


@dataclass(frozen=True)
class Archive:
    """The backups of a server.

    Args:
      folder: A folder that the server's user can write.
    """

    server: Server
    folder: Path

    @property
    def _data(self) -> Path:
        return self.server.pid_file.parent

    def back_up(self) -> None:
        """Make a base backup, as an administrator does."""
        program = _install(self._data) / "bin" / "pg_basebackup"
        base = self.folder / "base"
        subprocess.run(
            [str(program), "-d", self.server.url, "-D", str(base), "--checkpoint=fast"],
            check=True,
            capture_output=True,
        )

    def restore(self, to: datetime) -> None:
        """End PostgreSQL, and restore it to a point in time from the base backup and the WAL."""
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            row = connection.execute("SELECT pg_switch_wal()").fetchone()
            assert row is not None
            until(
                lambda: connection.execute(ARCHIVED, row).fetchone() == (True,), "WAL is archived"
            )
        self.server.stop()
        owner = self._data.stat()
        shutil.rmtree(self._data)
        shutil.move(self.folder / "base", self._data)  # maybe to another file system
        with (self._data / "postgresql.auto.conf").open("a") as settings:
            settings.write(RECOVERY.format(archive=self.folder, to=to.isoformat()))
        (self._data / "recovery.signal").touch()
        for path in [self._data, *self._data.rglob("*")]:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        self.server.start()
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            until(
                lambda: connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,),
                "the server is promoted",
            )


@contextmanager
def archiving(server: Server) -> Iterator[Archive]:
    """Archive the WAL of a server during the block."""
    folder = Path(tempfile.mkdtemp(prefix="polling-archive-", dir="/tmp"))
    owner = server.pid_file.parent.stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    _configure(server, "SET archive_mode = on", f"SET archive_command = 'cp %p {folder}/%f'")
    try:
        yield Archive(server, folder)
    finally:
        server.start()
        _configure(server, "RESET ALL")
        shutil.rmtree(folder)


def _configure(server: Server, *changes: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        for change in changes:
            connection.execute(f"ALTER SYSTEM {change}")
    server.restart()
