"""An integration whose accounts share a rate limit, as those of one Google client do.

The log of its calls has the account and the lane of each, and so the shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from support.metered import note_call

CLIENT = Rate("client", 60, 2.0, by="group")


class Config(BaseModel):
    """The numbers of calls of a run, in each lane."""

    live: int = 0
    backfill: int = 0


class Grouped(BaseIntegration[Config]):
    """An integration that makes one call in each task."""

    manifest = Manifest("grouped", "Grouped", limits=[CLIENT])

    def check(self) -> AccountIdentity:
        return AccountIdentity("grouped", "Grouped", group="client")

    def start(self, ctx: Context) -> TaskResult:
        lanes = {False: self.config.live, True: self.config.backfill}
        return TaskResult(
            tasks=[
                replace(self.call.task(number=number), background=background)
                for background, calls in lanes.items()
                for number in range(calls)
            ]
        )

    @task(cost={CLIENT.name: 1})
    def call(self, ctx: Context, number: int) -> TaskResult:
        note_call(f"{ctx.account.id}/{ctx.run.lane}")
        return TaskResult([TaskOutput(f"{ctx.run.lane}-{number}", "answered")])


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Grouped]
