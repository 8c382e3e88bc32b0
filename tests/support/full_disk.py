"""A full disk of PostgreSQL: a real small file system, or one kind of statement that fails."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from support.deployment import Deployment
from support.servers import Servers

FAILS = """
CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') = 'polling' THEN
        RAISE EXCEPTION 'could not extend file: No space left on device'
            USING ERRCODE = 'disk_full';
    END IF;
    RETURN NULL;
END $$
"""
FAIL = """
CREATE TRIGGER no_space BEFORE {operation} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION no_space()
"""
SUCCEED = "DROP FUNCTION no_space CASCADE"

END_SESSIONS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"


@contextmanager
def failing(deployment: Deployment, operation: str, table: str) -> Iterator[None]:
    """Make one kind of statement of the engine fail as on a full disk."""
    deployment.rows(FAILS)
    deployment.rows(FAIL.format(operation=operation, table=table))
    try:
        yield
    finally:
        deployment.rows(SUCCEED)


@dataclass(frozen=True)
class SmallDisk:
    """A file system of a few MiB, on which a database is.

    Args:
      folder: Its mount point.
    """

    folder: Path

    def fill(self) -> None:
        """Write a file until no space is left."""
        with suppress(OSError), (self.folder / "filler").open("wb") as filler:
            while True:
                os.write(filler.fileno(), b"\0" * 4096)

    def free(self) -> None:
        """Delete the file."""
        (self.folder / "filler").unlink(missing_ok=True)


@contextmanager
def small_disk(servers: Servers, deployment: Deployment, mebibytes: int) -> Iterator[SmallDisk]:
    """Move the database to a tablespace on a small file system. Nobody may be connected to it.

    Skips the test where this process may not mount a file system.
    """
    folder = Path(tempfile.mkdtemp(prefix="polling-small-", dir="/tmp"))
    owner = servers.postgres.pid_file.parent.stat()
    options = f"size={mebibytes}m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    try:
        _mount(folder, options)
        try:
            with _database_on(folder / "space", owner, deployment):
                yield SmallDisk(folder)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        folder.rmdir()


def _mount(folder: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("this process may not mount a file system")


@contextmanager
def _database_on(space: Path, owner: os.stat_result, deployment: Deployment) -> Iterator[None]:
    """Move the database to a tablespace in a folder, and back at the end."""
    space.mkdir()
    os.chown(space, owner.st_uid, owner.st_gid)
    _administer(deployment, f"CREATE TABLESPACE small LOCATION '{space}'")
    try:
        _move(deployment, "small")
        yield
    finally:
        (space.parent / "filler").unlink(missing_ok=True)
        _move(deployment, "pg_default")
        _administer(deployment, "DROP TABLESPACE small")


def _move(deployment: Deployment, space: str) -> None:
    name = urlsplit(deployment.database_url).path[1:]
    _administer(deployment, f'ALTER DATABASE "{name}" SET TABLESPACE {space}')


def _administer(deployment: Deployment, statement: str) -> None:
    """Execute a statement in another database, without other sessions in this one."""
    parts = urlsplit(deployment.database_url)
    with psycopg.connect(
        urlunsplit(parts._replace(path="/postgres")), autocommit=True
    ) as connection:
        connection.execute(END_SESSIONS, (parts.path[1:],))
        connection.execute(statement)
