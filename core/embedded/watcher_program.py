"""The program that stops embedded servers without users. It runs apart from every command.

The servers outlive the command that started them. A command that is killed cannot stop them, so
this program waits for the lock of their users: the kernel releases it at the end of the last user.
It imports only the standard library, to need little memory (9 MB). `core.embedded.watcher` starts
it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

POLL_SECONDS = 2.0
GRACE_SECONDS = 10.0
"""The time after a kill in which the next command joins the servers. In seconds."""

_FIRST_POLL_SECONDS = 0.1
_STOP_SECONDS, _STOP_SECONDS_WITHOUT_FOLDER, _KILL_SECONDS = 30.0, 5.0, 5.0


class WatchedServer(NamedTuple):
    """A server: the name of its files, its process id, and the signals that stop it.

    Attributes:
      name: The name of its lock file, without suffix.
      pid_file: Its file with the process id, in the folder of all servers.
      stop: The signal after which it stops and keeps everything.
      stop_at_once: A stronger signal. Confirmed writes are kept; the next start takes longer.
    """

    name: str
    pid_file: str
    stop: signal.Signals
    stop_at_once: signal.Signals


POSTGRES = WatchedServer("postgres", "postgres/postmaster.pid", signal.SIGINT, signal.SIGQUIT)
VALKEY = WatchedServer("valkey", "valkey/valkey.pid", signal.SIGTERM, signal.SIGKILL)


class _Server:
    """A server with its last known process id, and an own descriptor of its lock.

    The descriptor remains usable when the folder is gone.
    """

    def __init__(self, folder: Path, program: WatchedServer) -> None:
        self.program = program
        self.pid: int | None = None
        self._pid_file = folder / program.pid_file
        self._lock = _open(folder / f"{program.name}.lock")

    def pid_in_file(self) -> int | None:
        try:
            return int(self._pid_file.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def find_pid(self) -> None:
        """Find the first process that holds the lock, if no file has told its id. Linux only."""
        if self.pid is None:
            lock = os.fstat(self._lock)
            holders = [pid for pid in _others() if _has_open(pid, lock)]
            self.pid = min(holders, default=None)

    def alive(self) -> bool:
        """Return true if a process of the server exists. The caller prevents a start."""
        if not _lock(self._lock):
            return True
        _release(self._lock)
        return False

    def send(self, number: signal.Signals) -> None:
        if self.pid is not None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


def main(folder: Path) -> None:
    """Stop the servers of the folder when no process uses them, or when the folder is gone."""
    os.chdir("/")
    (folder / "watcher.pid").write_text(str(os.getpid()))
    starting, users = _open(folder / "start.lock"), _open(folder / "users.lock")
    servers = [_Server(folder, program) for program in (POSTGRES, VALKEY)]
    used_at = time.monotonic()
    while _read_pids(folder, users, servers):
        if not _unused(starting, users):
            used_at = time.monotonic()
        elif time.monotonic() - used_at < GRACE_SECONDS:
            _release(starting, users)
        else:
            _read_pids(folder, users, servers)  # A server may have restarted since.
            _stop(servers, _STOP_SECONDS)
            _release_all_but(starting)
            return
        # A folder that is deleted immediately after the start must not hide the ids.
        known = all(server.pid for server in servers)
        time.sleep(POLL_SECONDS if known else _FIRST_POLL_SECONDS)
    _stop(servers, _STOP_SECONDS_WITHOUT_FOLDER)


def _read_pids(folder: Path, users: int, servers: list[_Server]) -> bool:
    """Read the ids of the servers. Returns False if the folder is gone.

    A new folder of the same name has servers of its own. So the folder is checked after its files
    are read, and their ids count only if it is still the same.
    """
    pids = [server.pid_in_file() for server in servers]
    if not _leads_to(folder / "users.lock", users):
        return False
    for server, pid in zip(servers, pids, strict=True):
        server.pid = pid or server.pid
    return True


def _unused(starting: int, users: int) -> bool:
    """Return true, with both locks held, if no process uses or starts the servers."""
    if not _lock(starting):
        return False
    if _lock(users):
        return True
    _release(starting)
    return False


def _release(*descriptors: int) -> None:
    for descriptor in descriptors:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _stop(servers: list[_Server], seconds: float) -> None:
    """Stop the servers; after these seconds with stronger signals."""
    steps = (
        (seconds, lambda program: program.stop),
        (_KILL_SECONDS, lambda program: program.stop_at_once),
        (_KILL_SECONDS, lambda _: signal.SIGKILL),
    )
    for patience, choose in steps:
        deadline = time.monotonic() + patience
        alive = [server for server in servers if server.alive()]
        for server in alive:
            server.find_pid()
            server.send(choose(server.program))
        while any(server.alive() for server in alive) and time.monotonic() < deadline:
            time.sleep(0.05)


def _release_all_but(starting: int) -> None:
    """Close all other locks first: who gets `start.lock` next must find this program gone."""
    os.closerange(3, starting)
    os.closerange(starting + 1, os.sysconf("SC_OPEN_MAX"))


def _others() -> list[int]:
    folder = Path("/proc")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]


def _has_open(pid: int, file: os.stat_result) -> bool:
    try:
        return any(
            os.path.samestat(path.stat(), file) for path in Path(f"/proc/{pid}/fd").iterdir()
        )
    except OSError:  # the process has ended, or belongs to another user
        return False


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
