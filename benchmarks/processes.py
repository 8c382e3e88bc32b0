"""Programs that a benchmark starts, and what they use."""

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
    """Run a program in a session of its own while the block lasts; yields its process id.

    Parameters:
      environment: Variables to add to ours; this repository is always on its path.
      log: Where what it says is appended.
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
    """Whether a program that was started here has ended by itself."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait_until(
    condition: Callable[[], object], what: str, *, seconds: float = 60.0, pause: float = 0.02
) -> None:
    """Ask again and again until it is so.

    Raises:
      TimeoutError: It did not come to be; names `what`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {seconds:.0f} s")
        time.sleep(pause)


def family(parent: int) -> list[psutil.Process]:
    """A process and all below it."""
    top = psutil.Process(parent)
    return [top, *top.children(recursive=True)]


def cpu_seconds(processes: Sequence[psutil.Process]) -> list[float]:
    """CPU seconds used so far by each."""
    return [times.user + times.system for times in (process.cpu_times() for process in processes)]


def resident_bytes(processes: Sequence[psutil.Process]) -> list[int]:
    """Memory that each has in use."""
    return [process.memory_info().rss for process in processes]
