"""A server process that outlives the process that started it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from core.embedded.locks import open_lock, owned
from core.embedded.unix_user import UnixUser, run_as
from core.errors import ServerUnavailable

State = Literal["silent", "starting", "ready"]

# Seconds to wait in each state. A server that replays its log gets more time, because a restart
# would repeat the replay.
_PATIENCE: dict[State, float] = {"silent": 30.0, "starting": 300.0}
_STOP_SECONDS = 60.0


class Daemon:
    """Start, watch and stop one server.

    The server inherits a lock and holds it until the last of its processes is gone. The lock is
    reliable after a crash. A process id in a file is not, because it may belong to another program.

    Args:
      name: The server's name in messages.
      folder: The folder of its lock file and of its output during startup.
      program: The name of these two files, without suffix.
      journal: The file or folder of the server's own log. Default: its standard output.
    """

    def __init__(self, name: str, folder: Path, program: str, journal: Path | None = None) -> None:
        self.name = name
        self.log = folder / f"{program}.log"
        self._lock = folder / f"{program}.lock"
        self._logs = f"{self.log}" + (f" and {journal}" if journal else "")

    def alive(self) -> bool:
        """Return true if a process of the server exists."""
        if not self._lock.exists():
            return False
        with owned(open_lock(self._lock)) as lock:
            return not _locked(lock)

    def start(self, argv: Sequence[str], folder: Path, user: UnixUser | None = None) -> None:
        """Start the program in `folder`, as `user` if given.

        It has its own session, so that Ctrl-C does not reach it.

        Raises:
          ServerUnavailable: The server is already running.
        """
        with owned(open_lock(self._lock)) as lock, self.log.open("wb") as log:
            if not _locked(lock):
                raise ServerUnavailable("embedded-server-running", server=self.name)
            # The shell exits immediately. Init then adopts the server and reaps it at its end.
            subprocess.run(
                ["/bin/sh", "-c", '"$@" &', "sh", *argv],
                cwd=folder,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,
                umask=0o077,
                check=True,
                **run_as(user),
            )

    def wait(self, state: Callable[[], State]) -> None:
        """Return when the server is ready.

        Raises:
          ServerUnavailable: The server exited, did not answer within 30 seconds, or was still
            starting after 300 seconds.
        """
        began = time.monotonic()
        while (now := state()) != "ready":
            if not self.alive():
                raise ServerUnavailable("embedded-server-ended", server=self.name, log=self._logs)
            if time.monotonic() - began > _PATIENCE[now]:
                raise ServerUnavailable("embedded-server-silent", server=self.name, log=self._logs)
            time.sleep(0.02)

    def stop(self, pid_file: Path, with_signal: signal.Signals) -> None:
        """Signal the server to stop, and return when all its processes are gone.

        Raises:
          ServerUnavailable: It is still running after 60 seconds.
        """
        deadline = time.monotonic() + _STOP_SECONDS
        signal_sent = False
        while self.alive():
            if time.monotonic() > deadline:
                raise ServerUnavailable("embedded-server-stays", server=self.name, log=self._logs)
            signal_sent = signal_sent or _send(pid_file, with_signal)
            time.sleep(0.02)


def clean_environment() -> dict[str, str]:
    """Return a minimal environment for a server.

    Inherited variables could change its behaviour, or contain secrets that it does not need.
    """
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _send(pid_file: Path, with_signal: signal.Signals) -> bool:
    """Send the signal; return false if the server has not written its id yet, or is gone."""
    try:
        os.kill(int(pid_file.read_text().split()[0]), with_signal)
    except (FileNotFoundError, IndexError, ProcessLookupError):
        return False
    return True


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
