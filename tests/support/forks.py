"""Commands in forks of one program: each is a process of its own, without the time of its imports.

A command of `polling` imports for a second, and works for a tenth of one. The program imports
everything once, and then forks for each command. The process has the arguments, the environment,
the folder and the standard streams of the command, and returns its exit code.
"""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

IMPORTED = ("core.cli", "core.service", "core.ledger", "core.db", "core.embedded", "core.content")
"""The packages whose modules the program imports, with the installed plugins."""


# The tests' side
# --------------------------------------------------------------------------------------------------


class Forks:
    """The program, which ends with the process that started it."""

    def __init__(self) -> None:
        # A short path: that of a socket has at most some hundred bytes.
        self._at = tempfile.mkdtemp(prefix="forks-", dir="/tmp") + "/s"
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._at],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def run(
        self, words: Sequence[str], environment: Mapping[str, str], folder: Path, given: str | None
    ) -> tuple[int, str, str]:
        """Run `polling` with these words, and return its exit code, its output and its errors.

        Args:
          words: The arguments.
          environment: Its environment.
          folder: Its working directory.
          given: The text of its standard input. Default: none.

        Raises:
          TimeoutError: The command has not ended after 120 s. It is killed.
        """
        request = {"words": [*words], "environment": {**environment}, "folder": str(folder)}
        with (
            tempfile.TemporaryFile() as stdin,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as errors,
            socket.socket(socket.AF_UNIX) as connection,
        ):
            stdin.write((given or "").encode())
            stdin.seek(0)
            connection.settimeout(120)
            connection.connect(self._at)
            streams = [each.fileno() for each in (stdin, out, errors)]
            socket.send_fds(connection, [b"-"], streams)
            connection.sendall(json.dumps(request).encode() + b"\n")
            code = int(connection.makefile().readline())
            out.seek(0)
            errors.seek(0)
            return code, out.read().decode(), errors.read().decode()


@cache
def forks() -> Forks:
    """Return the program of this process, which the first call starts."""
    return Forks()


# The program's side
# --------------------------------------------------------------------------------------------------


def _import_everything() -> None:
    for package in IMPORTED:
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                import_module(module.name)
    for plugin in entry_points(group="integration_polling"):
        import_module(plugin.module)


def _serve(at: str) -> None:
    """Fork for each connection, until the standard input is closed."""
    _import_everything()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(at)
        listener.listen()
        os.write(1, b"ready\n")
        while listener in select.select([listener, 0], [], [])[0]:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                _attend(connection)
            connection.close()
    shutil.rmtree(Path(at).parent)


def _attend(connection: socket.socket) -> NoReturn:
    """Run the command of a connection in a fork, and send its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, *_ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile().readline())
    if not (command := os.fork()):
        connection.close()
        _run(request, streams)
    threading.Thread(target=_kill_when_left, args=(connection, command), daemon=True).start()
    _, status = os.waitpid(command, 0)
    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _kill_when_left(connection: socket.socket, command: int) -> None:
    """Kill the command when the test no longer waits for it."""
    connection.recv(1)
    os.kill(command, signal.SIGKILL)


def _run(request: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    """Become the command, and exit."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["polling", *request["words"]]
    import_module("core.cli").main()
    raise AssertionError("`main` exits")


if __name__ == "__main__":
    sys.path[0] = ""  # as for `python -c`
    _serve(sys.argv[1])
