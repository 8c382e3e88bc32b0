"""Hello World: an example integration for a made-up service with pages of greetings.

Read this file to learn how to write a plugin. The module `bench` lets tasks fail on purpose, and
computes the content that a sync must keep.
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
    """The state between runs: the number of runs so far."""

    count: int = 0


class HelloWorld(BaseIntegration[Config]):
    """An integration whose source is the same in every run, unless `grow` adds items.

    Without `grow`, a second run finds nothing new.
    """

    manifest = Manifest("hello-world", "Hello World")

    def check(self) -> AccountIdentity:
        """Return an identity that the name alone decides; there is nothing to connect to."""
        return AccountIdentity(self.config.name, f"Hello {self.config.name}")

    def start(self, ctx: Context) -> TaskResult:
        """Return one task for each page, and one for added items if `grow` is set."""
        grow = [self.grow.task()] if self.config.grow else []
        return TaskResult(
            tasks=[
                *grow,
                *(self.list_page.task(page=page + 1) for page in range(self.config.pages)),
            ]
        )

    @task
    def list_page(self, ctx: Context, page: int) -> TaskResult:
        """Return the items of a page: as output, or as one task for each item of a deeper tree."""
        self._work(ctx, f"page-{page}")
        if self.config.fanout_depth:
            return TaskResult(tasks=self._items(str(page), level=0))
        return TaskResult(
            self._greeting(f"{page}-{item}", str(page)) for item in range(self.config.items)
        )

    @task
    def make_item(self, ctx: Context, id: str, parent: str, level: int) -> TaskResult:
        """Return one item, and tasks for the items below it."""
        self._work(ctx, id)
        below = self._items(id, level + 1) if level < self.config.fanout_depth else []
        return TaskResult([self._greeting(id, parent)], below)

    @task
    def grow(self, ctx: Context) -> TaskResult:
        """Return the items that earlier runs and this one add.

        The transaction that saves them also advances the counter.
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
    """Return the integrations of this plugin."""
    return [HelloWorld]
