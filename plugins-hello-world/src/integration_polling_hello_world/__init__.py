"""Hello World: a made-up service whose pages hold greetings.

Read this file to learn how to write a plugin.

How it fails on purpose, and what a sync of it must come to, stands in `bench`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    Manifest,
    Task,
    TaskOutput,
    TaskResult,
    hookimpl,
    task,
)
from integration_polling_hello_world.bench import Config, expected, fail_on_purpose, greeting

__all__ = ["Config", "HelloWorld", "expected", "integrations"]

STATE = "runs"


class Runs(BaseModel):
    """What it remembers between runs: how many there were."""

    count: int = 0


class HelloWorld(BaseIntegration[Config]):
    """List the same pages in every run, unless the config says that they grow.

    A second run then finds nothing new.
    """

    manifest = Manifest("hello-world", "Hello World")

    def check(self) -> AccountIdentity:
        return AccountIdentity(self.config.name, f"Hello {self.config.name}")

    def start(self, ctx: Context) -> TaskResult:
        grow = [self.grow.task()] if self.config.grow else []
        return TaskResult(
            tasks=[
                *grow,
                *(self.list_page.task(page=page + 1) for page in range(self.config.pages)),
            ]
        )

    @task
    def list_page(self, ctx: Context, page: int) -> TaskResult:
        """Return a page of items, as output or, for a deeper tree, as one task for each."""
        self._work(ctx, f"page-{page}")
        if self.config.fanout_depth:
            return TaskResult(tasks=self._items(str(page), level=0))
        return TaskResult(
            self._greeting(f"{page}-{item}", str(page)) for item in range(self.config.items)
        )

    @task
    def make_item(self, ctx: Context, id: str, parent: str, level: int) -> TaskResult:
        """One item, and the tasks of the items below it."""
        self._work(ctx, id)
        below = self._items(id, level + 1) if level < self.config.fanout_depth else []
        return TaskResult([self._greeting(id, parent)], below)

    @task
    def grow(self, ctx: Context) -> TaskResult:
        """Return items that each run adds.

        The counter advances in the transaction that saves them.
        """
        runs = ctx.state(STATE, Runs) or Runs()
        new = (
            self._greeting(f"grown-{item}", "grown")
            for item in range(self.config.grow * runs.count)
        )
        return TaskResult(new, state={STATE: Runs(count=runs.count + 1)})

    def _work(self, ctx: Context, name: str) -> None:
        if self.config.delay_ms:
            time.sleep(self.config.delay_ms / 1000)
        if self.config.fail_rate:
            fail_on_purpose(self.config, ctx, name)

    def _items(self, parent: str, level: int) -> list[Task]:
        return [
            self.make_item.task(id=f"{parent}-{item}", parent=parent, level=level)
            for item in range(self.config.items)
        ]

    def _greeting(self, id: str, parent: str) -> TaskOutput:
        return TaskOutput(id, greeting(self.config, id), kind="greeting", parent=parent, name=id)


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [HelloWorld]
