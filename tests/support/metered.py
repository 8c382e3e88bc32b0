"""Hello World with a rate limit, and a log of the start of each call to its made-up provider.

The fleets of the tests load it as a plugin. The oracle reads the log and checks that the provider
received no more calls than it allows.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from integration_polling_hello_world import HelloWorld

from core import BaseIntegration, Context, Manifest, Rate, TaskResult, hookimpl, task

CALLS = Rate("calls", 150, 2.0)

LOG = "calls.log"


class Metered(HelloWorld):
    """Hello World's tree and content, with one call for each task."""

    manifest = Manifest("metered", "Metered Hello", limits=[CALLS])

    @task(cost={CALLS.name: 1})
    def list_page(self, ctx: Context, page: int) -> TaskResult:
        return super().list_page(ctx, page)

    @task(cost={CALLS.name: 1})
    def make_item(self, ctx: Context, id: str, parent: str, level: int) -> TaskResult:
        return super().make_item(ctx, id, parent, level)

    def _work(self, ctx: Context, name: str) -> None:
        note_call(ctx.account.id)
        super()._work(ctx, name)


def note_call(account: str, name: str = LOG) -> None:
    """Append the time and the account to the log.

    The time is the host's monotonic clock. The line is written in one piece, so that several
    processes can write.
    """
    log = os.open(Path(os.environ["POLLING_HOME"]) / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{time.monotonic():.6f} {account}\n".encode())
    os.close(log)


def calls(home: Path, name: str = LOG) -> dict[str, list[float]]:
    """Return the sorted times of each account's calls; empty if no metered task ran."""
    found: dict[str, list[float]] = defaultdict(list)
    if (home / name).exists():
        for line in (home / name).read_text().splitlines():
            moment, account = line.split()
            found[account].append(float(moment))
    return {account: sorted(moments) for account, moments in found.items()}


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Metered]
