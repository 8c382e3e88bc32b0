"""Start and stop the program that stops embedded servers after their last user was killed."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from core.embedded import watcher_program
from core.embedded.daemon import Daemon


class Watcher:
    """The process that watches the servers of a folder; see `core.embedded.watcher_program`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._daemon = Daemon("the watcher of the embedded servers", folder, "watcher")

    def alive(self) -> bool:
        """Return true if the process exists."""
        return self._daemon.alive()

    def start(self) -> None:
        """Start the process unless it runs. The caller holds `start.lock`."""
        if not self.alive():
            (self._folder / "watcher.pid").unlink(missing_ok=True)
            # Isolated and without packages: the program imports only the standard library.
            command = [sys.executable, "-I", "-S", watcher_program.__file__, str(self._folder)]
            self._daemon.start(command, self._folder)

    def stop(self) -> None:
        """Stop the process, if it runs. The caller holds `start.lock`, and has stopped the servers.

        Raises:
          ServerUnavailable: It is still running after 60 seconds.
        """
        self._daemon.stop(self._folder / "watcher.pid", signal.SIGTERM)
