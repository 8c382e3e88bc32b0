"""A server process that outlives whoever started it."""

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

# A server that says that it is replaying its log gets the time to finish: ending it would only
# begin that anew.
_PATIENCE: dict[State, float] = {"silent": 30.0, "starting": 300.0}
_STOP_SECONDS = 60.0


class Daemon:
    """Starts, watches and stops one server.

    The server inherits a lock from us and holds it until the last of its processes is gone. That,
    unlike a process id in a file, cannot be mistaken after a crash, when the id may belong to
    another program.

    Args:
      name: What people call it.
      folder: Where its lock and the output of its start lie.
      program: The name of these files.
      journal: Where the server itself writes once it has started. Default: to the same file.
    """

    def __init__(self, name: str, folder: Path, program: str, journal: Path | None = None) -> None:
        self.name = name
        self.log = folder / f"{program}.log"
        self._lock = folder / f"{program}.lock"
        self._logs = f"{self.log}" + (f" and {journal}" if journal else "")

    def alive(self) -> bool:
        """Whether a process of the server is left."""
        if not self._lock.exists():
            return False
        with owned(open_lock(self._lock)) as lock:
            return not _locked(lock)

    def start(self, argv: Sequence[str], folder: Path, user: UnixUser | None = None) -> None:
        """Start the program in `folder`, as `user` if given.

        It has its own session, so that Ctrl-C does not reach it.
        """
        with owned(open_lock(self._lock)) as lock, self.log.open("wb") as log:
            if not _locked(lock):
                raise ServerUnavailable("embedded-server-running", server=self.name)
            # The shell leaves at once, so the server is nobody's child, and nobody has to wait for
            # it.
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
        """Returns when the server is ready.

        Raises:
          ServerUnavailable: It ended, or did not answer in 30 seconds, or was not done with
            starting in 300.
        """
        began = time.monotonic()
        while (now := state()) != "ready":
            if not self.alive():
                raise ServerUnavailable("embedded-server-ended", server=self.name, log=self._logs)
            if time.monotonic() - began > _PATIENCE[now]:
                raise ServerUnavailable("embedded-server-silent", server=self.name, log=self._logs)
            time.sleep(0.02)

    def stop(self, pid_file: Path, with_signal: signal.Signals) -> None:
        """Asks the server to end, and returns when all its processes are gone.

        Raises:
          ServerUnavailable: It is still there after 60 seconds.
        """
        deadline = time.monotonic() + _STOP_SECONDS
        signal_sent = False
        while self.alive():
            if time.monotonic() > deadline:
                raise ServerUnavailable("embedded-server-stays", server=self.name, log=self._logs)
            signal_sent = signal_sent or _send(pid_file, with_signal)
            time.sleep(0.02)


def clean_environment() -> dict[str, str]:
    """The environment without our variables.

    Some change a server's behaviour, others are secrets that it does not need.
    """
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _send(pid_file: Path, with_signal: signal.Signals) -> bool:
    """Sends the signal, unless the server is too young to have written its id, or is gone."""
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
