"""Programs in forks of one process: each is a process of its own, without the time of its imports.

A command of `polling` imports for a second, and works for a tenth of one. The process here imports
everything once, and then forks for each program. The fork has the arguments, the environment, the
folder and the standard streams of the program, and ends as it does.

Only Linux has all calls for this. Elsewhere, programs are started as people start them.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import pkgutil
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

POLLING = [sys.executable, "-c", "from core.cli import main; main()"]
DRAMATIQ = [sys.executable, "-m", "dramatiq"]

EXCLUDED = ("core.actors", "core.demo", "core.testing")
"""Modules that the process does not import: they act when they are imported, or are not needed."""


# The tests' side
# --------------------------------------------------------------------------------------------------


def start(
    argv: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    streams: Sequence[int],
    *,
    session: bool = False,
    forked: bool = True,
) -> Fork | subprocess.Popen[bytes]:
    """Start a program in a fork, or as a new process if a fork cannot run it.

    Args:
      argv: The command.
      environment: Its environment.
      folder: Its working directory.
      streams: The file descriptors of its standard streams.
      session: True if it leads a session of its own. Default: False.
      forked: False if it must be a new process. Default: True.
    """
    if forked and (words := _forkable(argv, environment)):
        return _forks().start(words, environment, folder, streams, session=session)
    stdin, out, errors = streams
    return subprocess.Popen(
        argv, env=environment, cwd=folder, stdin=stdin, stdout=out, stderr=errors,
        start_new_session=session,
    )  # fmt: skip


def _forkable(argv: Sequence[str], environment: Mapping[str, str]) -> list[str] | None:
    """Return the words of `Forks.start` for a command; None if a fork cannot run it.

    A fork cannot run code that Python loads when it starts, or another version of the engine.
    Dramatiq reads its variables when it is imported.
    """
    folders = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    others = [Path(each, name) for each in folders for name in ("sitecustomize.py", "core")]
    is_read = any(name.startswith("dramatiq_") for name in environment)
    if sys.platform != "linux" or is_read or any(other.exists() for other in others):
        return None
    for name, words in (("polling", POLLING), ("dramatiq", DRAMATIQ)):
        if [*argv[: len(words)]] == words:
            return [name, *argv[len(words) :]]
    return None


def polling(
    words: Sequence[str], environment: Mapping[str, str], folder: Path, given: str = ""
) -> tuple[int, str, str]:
    """Run a command of `polling`, and return its exit code, its output and its errors.

    Args:
      words: The arguments.
      environment: Its environment.
      folder: Its working directory.
      given: The text of its standard input. Default: none.

    Raises:
      TimeoutExpired: The command has not ended after two minutes. It is killed.
    """
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as errors,
    ):
        stdin.write(given.encode())
        stdin.seek(0)
        streams = [each.fileno() for each in (stdin, out, errors)]
        process = start([*POLLING, *words], environment, folder, streams)
        try:
            code = process.wait(120)
        finally:
            process.kill()
        out.seek(0)
        errors.seek(0)
        return code, out.read().decode(), errors.read().decode()


class Fork:
    """A running program, with the methods of `subprocess.Popen` that the tests use.

    Attributes:
      pid: The id of its process. No other process gets it before `wait` or `poll` has returned the
        exit code.
      returncode: Its exit code; None while it runs. A signal is a negative number.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("r")
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while the program runs."""
        if self.returncode is None and self._has_ended(0):
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code.

        Raises:
          TimeoutExpired: The program still runs after `timeout` seconds.
        """
        if self.returncode is None:
            if not self._has_ended(timeout):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM, if the program still runs."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, if the program still runs."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _has_ended(self, seconds: float | None) -> bool:
        poll = select.poll()  # `select` fails for the numbers that a test with many sockets has
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def _end(self) -> None:
        self.returncode = int(self._lines.readline())
        self._lines.close()
        self._connection.close()


class Forks:
    """The process that forks. It ends with the process that started it."""

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
        with self._process.stdout as out:
            assert out.readline() == b"ready\n"
        atexit.register(self._end)

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        streams: Sequence[int],
        *,
        session: bool,
    ) -> Fork:
        """Start `polling` or `dramatiq`, which is the first word."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._at)
        socket.send_fds(connection, [b"-"], [*streams])
        request = {
            "words": [*words],
            "environment": {**environment},
            "folder": str(folder),
            "session": session,
        }
        connection.sendall(json.dumps(request).encode() + b"\n")
        return Fork(connection)


@cache
def _forks() -> Forks:
    return Forks()


# The process that forks
# --------------------------------------------------------------------------------------------------


def _import(package: str) -> None:
    """Import the modules of a package."""
    for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
        if module.name not in EXCLUDED:
            import_module(module.name)
            if module.ispkg:
                _import(module.name)


def _serve(at: str) -> None:
    """Fork for each connection, until the standard input is closed."""
    _import("core")
    for name in ("dramatiq.cli", "uvicorn.lifespan.on", "uvicorn.protocols.http.httptools_impl"):
        with suppress(ImportError):
            import_module(name)
    for plugin in entry_points(group="integration_polling"):
        import_module(plugin.module)
    gc.collect()
    gc.freeze()
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
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
    shutil.rmtree(Path(at).parent)


def _attend(connection: socket.socket) -> NoReturn:
    """Run the program of a connection in a fork, send its exit code, and wait for the receipt."""
    _, streams, *_ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as lines:
        request = json.loads(lines.readline())
    if not (program := os.fork()):
        if request["session"]:
            os.setsid()
        connection.sendall(b"%d\n" % os.getpid())
        connection.close()
        _run(request, streams)
    for stream in streams:
        os.close(stream)
    end = os.pidfd_open(program)
    if end in select.select([connection, end], [], [])[0]:
        ended = os.waitid(os.P_PIDFD, end, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        by_itself = ended.si_code == os.CLD_EXITED
        with suppress(OSError):
            connection.sendall(b"%d\n" % (ended.si_status if by_itself else -ended.si_status))
            connection.recv(1)
    else:  # the tests have ended
        with suppress(ProcessLookupError):
            (os.killpg if request["session"] else os.kill)(program, signal.SIGKILL)
    os.waitpid(program, 0)
    os._exit(0)


def _run(request: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    """Become the program."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = request["words"]
    if sys.argv[0] == "polling":
        import_module("core.cli").main()
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    sys.path[0] = ""  # as for `python -c` and `python -m`
    _serve(sys.argv[1])
