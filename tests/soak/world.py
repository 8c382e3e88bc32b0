"""The tested installation: both servers, three programs of workers, and the scheduler.

The world restarts programs that have ended, as a supervisor does.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from support.deployment import Deployment, make_deployment
from support.fleet import HOSTILE, Fleet
from support.servers import Servers

from soak.metered import CALLS_LOG
from soak.network import Network

LEASE_SECONDS = 5.0
PROCESSES, THREADS = 2, 4

LARGEST_LOG = 8 * 1024 * 1024
"""The number of bytes of the programs' log at which it is truncated."""

_RUN_ENDED = re.compile(r"run [0-9a-f-]+ of account [0-9a-f-]+ ended.*")


class WatchedFleet(Fleet):
    """A fleet that remembers only which runs ended, so that neither disk nor memory fills."""

    def __init__(self, deployment: Deployment, folder: Path, **variables: str) -> None:
        super().__init__(deployment, folder, **variables)
        self._read = 0
        self.ended: list[str] = []
        self.replaced = 0

    def says(self) -> str:
        """Return the log lines about runs that ended."""
        self._follow()
        return "\n".join(self.ended)

    def forget(self, account: str) -> None:
        """Delete the log lines about an account."""
        self.ended = [line for line in self.ended if account not in line]

    def supervise(self) -> None:
        """Restart programs that have ended."""
        for program in self.programs:
            if program.exit_code is not None:
                program.kill()
                program.start()
                self.replaced += 1

    def _follow(self) -> None:
        if not self.log.exists():
            return
        with self.log.open("rb") as log:
            log.seek(self._read)
            data = log.read()
        complete = data.rfind(b"\n") + 1
        self._read += complete
        self.ended += _RUN_ENDED.findall(data[:complete].decode("utf-8", "replace"))
        if self._read > LARGEST_LOG:
            os.truncate(self.log, 0)  # all programs append to it
            self._read = 0


class World:
    """The complete installation, in one folder that is deleted at the end.

    Attributes:
      victims: The programs that faults may kill.
      remote: The victim whose network faults may cut.
      blobs: The folder of large content.
      keep: Set it to keep the folder, and in it the programs' log.
      elder: A program that the soak never kills, to show whether memory grows with age.
    """

    def __init__(self, seed: int) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="soak-"))
        self.calls_log = self.home / "calls.log"
        self.blobs = self.home / "blobs"
        self.servers = Servers(options={})
        self.keep = False
        self._name = f"soak-{seed}"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # closes everything started before an error
            stack.callback(self._forget)
            stack.callback(self.servers.close)
            self.servers.start()
            self.deployment = self._deploy()
            stack.callback(self.deployment.close)
            self.fleet = WatchedFleet(self.deployment, self.home, **self._variables())
            stack.callback(self.fleet.end)
            self.network = stack.enter_context(Network(self.deployment))
            self.remote = self.fleet.workers(
                processes=PROCESSES, threads=THREADS, **self.network.variables()
            )
            self.victims = [self.fleet.workers(processes=PROCESSES, threads=THREADS), self.remote]
            self.elder = self.fleet.workers(processes=1, threads=THREADS)
            self.scheduler = self.fleet.scheduler()
            self.fleet.ready(60)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.keep |= kind is not None and kind is not SystemExit
        self._stack.close()

    def _deploy(self) -> Deployment:
        home = self.home / "polling"
        home.mkdir()
        return make_deployment(self.servers.postgres.url, self.servers.valkey.url, home, self._name)

    def _variables(self) -> dict[str, str]:
        return {
            **HOSTILE,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), HOSTILE["PYTHONPATH"]]),
            "POLLING_PLUGINS": f"{HOSTILE['POLLING_PLUGINS']},soak.metered",
            "POLLING_CRON_SCHEDULE": "* * * * *",
            "POLLING_LEASE_SECONDS": str(LEASE_SECONDS),
            "POLLING_BLOB_URL": str(self.blobs),
            CALLS_LOG: str(self.calls_log),
        }

    def _forget(self) -> None:
        if self.keep:
            print(f"the end of the programs' log is in {self.fleet.log}")
        else:
            shutil.rmtree(self.home, ignore_errors=True)

    @property
    def threads(self) -> int:
        """The number of threads of all workers."""
        return THREADS * (PROCESSES * len(self.victims) + 1)
