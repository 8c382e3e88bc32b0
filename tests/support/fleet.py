"""Real processes, started and stopped as in production.

The programs are `dramatiq core.actors` and `periodiq core.actors`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil

from support.deployment import Deployment
from support.forks import start
from support.waiting import until

T = TypeVar("T")

FOLDERS = [Path(__file__).parents[1], Path(__file__).parent / "hostile-plugin" / "src"]
METERED = {
    "PYTHONPATH": os.pathsep.join([*map(str, FOLDERS), os.environ.get("PYTHONPATH", "")]),
    "POLLING_PLUGINS": "support.metered",
}
"""The settings of every fleet: they add a plugin that logs its calls."""
HOSTILE = METERED | {"POLLING_PLUGINS": "integration_polling_hostile"}
"""The settings of a fleet with the hostile plugin."""
GATED = METERED | {"POLLING_PLUGINS": "support.gates.plugin"}
"""The settings of a fleet with gates in its plugin.

With `modules=["support.gates.broker"]`, it also has a gate right before the plugin.
"""

LEASE_SECONDS = 2.0
"""The lease of a task: short, so that the tasks of a killed process are soon redelivered."""


class Program:
    """One command with all its processes, in a process group of its own.

    Args:
      processes: The number of its worker processes.
      log: The file for its output.
      forked: True if the command runs in a fork, where that is possible.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        processes: int,
        log: Path,
        *,
        forked: bool,
    ) -> None:
        self.argv = argv
        self.environment = environment
        self.processes = processes
        self.log = log
        self._forked = forked
        self.start()

    def start(self) -> None:
        """Start the command. A previous start must have exited."""
        with self.log.open("ab") as log, Path(os.devnull).open() as nothing:
            streams = [nothing.fileno(), log.fileno(), log.fileno()]
            self._process = start(
                self.argv, self.environment, self.log.parent, streams, session=True,
                forked=self._forked,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while the command runs."""
        return self._process.poll()

    def children(self) -> set[int]:
        """Return the ids of its live worker processes and of its live dispatcher."""
        if (tasks := Path(f"/proc/{self.pid}/task")).exists():
            return _children(tasks)
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "stat="],
            capture_output=True,
            text=True,
            check=True,
        )
        rows = [line.split() for line in listed.stdout.splitlines()]
        return {
            int(pid)
            for pid, parent, state in rows
            if int(parent) == self.pid and not state.startswith("Z")
        }

    def kill(self) -> None:
        """Kill all its processes, including those whose parent has died."""
        # macOS: no permission for a group of zombies.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def terminate(self, seconds: float = 30.0) -> int:
        """Send SIGTERM, and return the exit code."""
        self._process.terminate()
        return self._process.wait(seconds)


def _children(tasks: Path) -> set[int]:
    """Return the live children of a process; Linux lists them, and `ps` reads every process."""
    found = set()
    for path in tasks.glob("*/children"):
        with suppress(OSError):  # the thread has ended
            for pid in path.read_text().split():
                with suppress(OSError):
                    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                    found |= {int(pid)} if state != "Z" else set()
    return found


class Fleet:
    """All programs of a deployment.

    Args:
      folder: The folder of its log.
      variables: Settings for all its programs, in addition to the deployment's.

    Attributes:
      forked: False if its programs are started as in production. Default: True, they run in forks,
        which start much faster.
    """

    def __init__(self, deployment: Deployment, folder: Path, **variables: str) -> None:
        self.deployment = deployment
        self.forked = True
        self.log = folder / "fleet.log"
        self.variables = METERED | {"POLLING_LEASE_SECONDS": str(LEASE_SECONDS)} | variables
        self.programs: list[Program] = []

    def workers(
        self,
        *queues: str,
        processes: int = 2,
        threads: int = 4,
        python: str = sys.executable,
        memory_kib: int | None = None,
        modules: Sequence[str] = (),
        **variables: str,
    ) -> Program:
        """Start `dramatiq core.actors`, for the named queues or for all queues.

        Args:
          *queues: The queues. Default: all.
          processes: The number of worker processes.
          threads: The threads of each process.
          python: The Python that runs them.
          memory_kib: The maximum address space of each process in KiB. Default: None, no limit.
          modules: Modules that Dramatiq loads in addition to the actors.
          **variables: Environment variables to add.
        """
        bound = (
            []
            if memory_kib is None
            else ["/bin/sh", "-c", f'ulimit -v {memory_kib}; exec "$@"', "sh"]
        )
        actors = ["-m", "dramatiq", "core.actors", *modules]
        command = [*bound, python, *actors, "-p", str(processes), "-t", str(threads)]
        return self.start([*command, *(["-Q", *queues] if queues else [])], processes, **variables)

    def scheduler(self, **variables: str) -> Program:
        """Start `periodiq core.actors`."""
        return self.start(
            [str(Path(sys.executable).with_name("periodiq")), "core.actors"], **variables
        )

    def start(self, argv: Sequence[str], processes: int = 0, **variables: str) -> Program:
        """Start any command.

        Args:
          argv: The command and its arguments.
          processes: The number of worker processes among its children.
          **variables: Environment variables to add.
        """
        environment = self.deployment.environment() | self.variables | variables
        self.programs.append(Program(argv, environment, processes, self.log, forked=self.forked))
        return self.programs[-1]

    def ready(self, seconds: float = 20.0) -> None:
        """Wait until every worker process is registered and a dispatcher leads."""
        wanted = sum(program.processes for program in self.programs)
        self.until(
            lambda: len(self.worker_pids()) == wanted and self.led(), "the fleet is ready", seconds
        )

    def worker_pids(self) -> list[int]:
        """Return the ids of the live and registered worker processes."""
        registered = {
            pid for (pid,) in self.deployment.rows("SELECT pid FROM process WHERE kind = 'worker'")
        }
        return sorted(registered & {pid for program in self.programs for pid in program.children()})

    def dispatcher_pids(self) -> list[int]:
        """Return the ids of the dispatchers, leading or not."""
        children = {
            pid for program in self.programs if program.processes for pid in program.children()
        }
        return sorted(children - set(self.worker_pids()))

    def let_the_lead_run_out(self, vacant_seconds: float = 0.0) -> None:
        """Expire the leadership of a dead dispatcher, as if `vacant_seconds` had passed since.

        Without this, it lasts 10 s, and a worker process waits 20 s more before it stands in.
        """
        until = "clock_timestamp() - %s * interval '1 second'"
        self.deployment.rows(
            f"UPDATE engine_state SET leader_until = {until} WHERE leader IS NOT NULL",
            vacant_seconds,
        )

    def led(self) -> bool:
        """Return True if a dispatcher leads now."""
        return bool(
            self.deployment.rows(
                "SELECT 1 FROM engine_state WHERE leader_until > clock_timestamp()"
            )
        )

    def until(
        self, condition: Callable[[], T], what: str, seconds: float = 20.0, *, replace: bool = False
    ) -> T:
        """Wait for a condition.

        Args:
          condition: Returns a true value when the wait ends.
          what: The text of the error.
          seconds: The time limit.
          replace: Restart programs that exit in the meantime, as a supervisor does. Default: False.
        """

        def step() -> T:
            for program in self.programs:
                if replace and program.exit_code is not None:
                    program.kill()
                    program.start()
            return condition()

        return until(step, what, seconds)

    def says(self) -> str:
        """Return the output of all its processes."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def end(self) -> None:
        """Kill all remaining processes."""
        for program in self.programs:
            program.kill()


def send(number: signal.Signals, *pids: int) -> None:
    """Send a signal to processes of a fleet; after SIGSTOP, wait until they are stopped.

    On a busy machine, other threads of a process run on until its first thread stops.
    """
    for pid in pids:
        os.kill(pid, number)
    if number == signal.SIGSTOP:
        for process in map(psutil.Process, pids):
            until(lambda process=process: process.status() == psutil.STATUS_STOPPED, "it stops")
