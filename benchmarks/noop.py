"""An integration of no-op tasks in a tree.

Each page has a hundred items, and each item is a task with one small output. The setting
POLLING_PLUGINS loads this module. Its tasks take no time, so that only the engine is measured.
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
    TaskOutput,
    TaskResult,
    hookimpl,
    task,
)

ITEMS = 100


class Config(BaseModel):
    """The config of an account: the number of pages of a hundred items."""

    pages: int = 100


class Noop(BaseIntegration[Config]):
    """The integration: a recursive tree of tasks that do nothing."""

    manifest = Manifest("noop", "No-op")

    def check(self) -> AccountIdentity:
        return AccountIdentity("noop", "No-op")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.page.task(page=0)])

    @task
    def page(self, ctx: Context, page: int) -> TaskResult:
        tasks = [self.item.task(number=page * ITEMS + index) for index in range(ITEMS)]
        if page + 1 < self.config.pages:
            # Pages have priority over items, so that the workers never run out of tasks.
            tasks.append(replace(self.page.task(page=page + 1), priority=1))
        return TaskResult(tasks=tasks)

    @task
    def item(self, ctx: Context, number: int) -> TaskResult:
        return TaskResult([TaskOutput(str(number), "hello world " * 10)])


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Noop]
