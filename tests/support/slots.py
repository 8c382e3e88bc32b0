"""Hello World with a concurrency limit, and a log of the beginning and the end of each task."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from integration_polling_hello_world import HelloWorld

from core import BaseIntegration, Concurrency, Context, Manifest, hookimpl

TASKS = Concurrency("slots", 2)

LOG = "slots.log"


class Slots(HelloWorld):
    """Hello World's tree and content, two tasks at a time."""

    manifest = Manifest("slots", "Slots", limits=[TASKS])

    def _work(self, ctx: Context, name: str) -> None:
        note(1)
        super()._work(ctx, name)
        note(-1)


def note(change: int) -> None:
    """Append the time and the change of the number of running tasks to the log."""
    log = os.open(Path(os.environ["POLLING_HOME"]) / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{time.monotonic():.6f} {change}\n".encode())
    os.close(log)


def most_at_a_time(home: Path) -> int:
    """Return the largest number of tasks that ran at the same time."""
    rows = [line.split() for line in (home / LOG).read_text().splitlines()]
    running = most = 0
    for _, change in sorted((float(moment), int(change)) for moment, change in rows):
        running += change
        most = max(most, running)
    return most


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Slots]
