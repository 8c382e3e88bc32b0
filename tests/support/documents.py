"""Run the blocks of commands in documents, with the shell of a reader."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BLOCK = re.compile(r"^```(python|sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STAYS = "# runs until Ctrl-C\n"
SECONDS = 120


def environment(home: Path) -> dict[str, str]:
    """Return an environment with this Python, embedded servers, and no settings of a developer."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("POLLING_", "DATABASE_", "REDIS_"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {
        "PATH": path,
        "POLLING_HOME": str(home),
        "POLLING_LOG_LEVEL": "WARNING",
        "COLUMNS": "200",
    }


@contextmanager
def running(script: str, folder: Path, env: dict[str, str]) -> Iterator[Path]:
    """Run a command in a session of its own until the block ends; yield the path of its output."""
    path = folder / "stays.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-euc", script],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield path
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(SECONDS)
        # The shell has exited; its child processes may need more time.
        deadline = time.monotonic() + SECONDS
        with suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(process.pid, 0)
                time.sleep(0.1)
            os.killpg(process.pid, signal.SIGKILL)


def run(script: str, folder: Path, env: dict[str, str]) -> str:
    """Run a block of commands, which must succeed, and return its output."""
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout
