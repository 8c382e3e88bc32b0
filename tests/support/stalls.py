"""An integration whose accounts wait for a cause that their config names.

The fleets of `tests/faults/test_waiting.py` load it as a plugin.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    CredentialsInvalid,
    Listing,
    Manifest,
    Rate,
    TaskOutput,
    TaskResult,
    Unavailable,
    hookimpl,
    task,
)

OWN = Rate("calls", 2, 600.0)
SHARED = Rate("client", 2, 600.0, by="group")


class Config(BaseModel):
    """The numbers of tasks of a run, by their kind.

    Attributes:
      hold: Tasks that hold a thread until a test opens the account.
      background: The same in the backfill.
      calls, shared: Tasks that take a unit of the own and of the shared limit.
      away: Tasks that fail, because the provider does not answer.
      refused: Tasks whose credentials the provider rejects.
      items: The items of a listing; without any, nothing is listed.
    """

    hold: int = 0
    background: int = 0
    calls: int = 0
    shared: int = 0
    away: int = 0
    refused: int = 0
    items: int = 0


class Stalls(BaseIntegration[Config]):
    """An integration that waits on request."""

    manifest = Manifest("stalls", "Stalls", limits=[OWN, SHARED])

    def check(self) -> AccountIdentity:
        if self.config.away:
            raise Unavailable("HTTP 503")
        return AccountIdentity("stalls", "Stalls", group="client")

    def start(self, ctx: Context) -> TaskResult:
        config = self.config
        kinds = {
            self.hold: config.hold, self.call: config.calls, self.share: config.shared,
            self.fail: config.away, self.refuse: config.refused,
        }  # fmt: skip
        tasks = [
            kind.task(number=number) for kind, count in kinds.items() for number in range(count)
        ]
        older = [self.hold.task(number=-1 - number) for number in range(config.background)]
        listing = [self.list_items.task()] if config.items else []
        return TaskResult(
            tasks=[*tasks, *(replace(task, background=True) for task in older), *listing]
        )

    @task
    def hold(self, ctx: Context, number: int) -> TaskResult:
        while not opened(ctx.account.id).exists():
            time.sleep(0.02)
        return TaskResult()

    @task(cost={OWN.name: 1})
    def call(self, ctx: Context, number: int) -> TaskResult:
        return TaskResult()

    @task(cost={SHARED.name: 1})
    def share(self, ctx: Context, number: int) -> TaskResult:
        return TaskResult()

    @task
    def fail(self, ctx: Context, number: int) -> TaskResult:
        raise Unavailable("HTTP 503")

    @task
    def refuse(self, ctx: Context, number: int) -> TaskResult:
        raise CredentialsInvalid("the password has changed")

    @task
    def list_items(self, ctx: Context) -> TaskResult:
        items = (TaskOutput(str(number), "text") for number in range(self.config.items))
        return TaskResult(items, listed=[Listing()])


def opened(account: object, home: str | Path | None = None) -> Path:
    """Return the file that lets the held tasks of an account end."""
    return Path(home or os.environ["POLLING_HOME"]) / f"open-{account}"


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Stalls]
