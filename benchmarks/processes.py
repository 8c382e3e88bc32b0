"""Programs that a benchmark starts, and the resources that they use."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
MAX_SHUTDOWN_SECONDS = 30.0


@contextmanager
def program(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[int]:
    """Run a program in a session of its own during the block; yield its process id.

    Args:
      arguments: The command and its arguments.
      environment: Variables to add to the environment. `PYTHONPATH` always names this repository.
      log: The file to which the program's output is appended.
    """
    everything = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with log.open("ab") as output:
        started = subprocess.Popen(
            arguments, env=everything, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield started.pid
        finally:
            started.terminate()
            with suppress(subprocess.TimeoutExpired):
                started.wait(MAX_SHUTDOWN_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def ended(pid: int) -> bool:
    """Return True if a program that was started here has exited."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait_until(
    condition: Callable[[], object], what: str, *, seconds: float = 60.0, pause: float = 0.02
) -> None:
    """Poll a condition until it is true.

    Args:
      condition: Returns a true value when the wait ends.
      what: The text of the error.
      seconds: The time limit. Default: 60.
      pause: Seconds between two checks. Default: 0.02.

    Raises:
      TimeoutError: The condition is still false after the time limit.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {seconds:.0f} s")
        time.sleep(pause)


def family(parent: int) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    top = psutil.Process(parent)
    return [top, *top.children(recursive=True)]


def cpu_seconds(processes: Sequence[psutil.Process]) -> list[float]:
    """Return the CPU seconds that each process has used so far."""
    return [times.user + times.system for times in (process.cpu_times() for process in processes)]


def resident_bytes(processes: Sequence[psutil.Process]) -> list[int]:
    """Return the resident memory of each process."""
    return [process.memory_info().rss for process in processes]
