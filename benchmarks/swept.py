"""An integration for `benchmarks.sweep`: changing items, or a listing that has lost almost all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    Listing,
    Manifest,
    TaskOutput,
    TaskResult,
    hookimpl,
    task,
)

ITEMS = 100
KEPT = "kept"
"""The only item that is left in the listing of an account without pages."""


class Config(BaseModel):
    """The config of an account: the number of pages of a hundred items; 0 for a lost listing."""

    pages: int = 0


class Swept(BaseIntegration[Config]):
    """The integration: every item changes in every run."""

    manifest = Manifest("swept", "Swept items")

    def check(self) -> AccountIdentity:
        return AccountIdentity("swept", "Swept items")

    def start(self, ctx: Context) -> TaskResult:
        if not self.config.pages:
            return TaskResult(seen=[KEPT], listed=[Listing()])
        return TaskResult(tasks=[self.page.task(number=n) for n in range(self.config.pages)])

    @task
    def page(self, ctx: Context, number: int) -> TaskResult:
        first, text = number * ITEMS, f"run {ctx.run.id} "
        return TaskResult([TaskOutput(str(id), text * 10) for id in range(first, first + ITEMS)])


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Swept]
