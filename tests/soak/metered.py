"""An integration that logs the time of each of its calls.

Every call has a cost, and the log shows whether the budget held.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    Manifest,
    Rate,
    TaskOutput,
    TaskResult,
    hookimpl,
    task,
)

CALLS_LOG = "SOAK_CALLS_LOG"
"""The environment variable that names the log file."""

UNITS, SECONDS = 60, 5.0


class Config(BaseModel):
    """The configuration of an account: the number of calls of a run."""

    calls: int = 40


class Metered(BaseIntegration[Config]):
    """An integration with one budget for all of its accounts."""

    manifest = Manifest(
        "soak-metered", "Metered", limits=[Rate("calls", UNITS, SECONDS, by="integration")]
    )

    def check(self) -> AccountIdentity:
        return AccountIdentity("metered", "Metered")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(
            tasks=[self.call.task(number=number) for number in range(self.config.calls)]
        )

    @task(cost={"calls": 1})
    def call(self, ctx: Context, number: int) -> TaskResult:
        """Call the provider."""
        with Path(os.environ[CALLS_LOG]).open("a") as log:
            log.write(f"{time.monotonic():.4f}\n")
        return TaskResult([TaskOutput(f"call-{number}", "answered")])


def most_in_a_window(log: Path) -> int:
    """Return the largest number of calls in any window of the budget."""
    times = sorted(float(line) for line in log.read_text().split()) if log.exists() else []
    most = first = 0
    for last, moment in enumerate(times):
        while moment - times[first] >= SECONDS:
            first += 1
        most = max(most, last - first + 1)
    return most


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Metered]
