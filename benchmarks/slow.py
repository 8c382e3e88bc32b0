"""An integration for `benchmarks.shares`: tasks that sleep, in two domains."""

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
    TaskOutput,
    TaskResult,
    hookimpl,
    task,
)

CHECK_SECONDS = 0.2
"""Seconds between two checks of a sleeping task whether its account was stopped."""


class Config(BaseModel):
    """The config of an account.

    Attributes:
      pages: The number of pages, which come one after another.
      items: The number of items of each page. Each is a task.
      page_seconds: The time that a page takes.
      item_seconds: The time that an item takes.
    """

    pages: int = 3
    items: int = 0
    page_seconds: float = 0.02
    item_seconds: float = 0.0


class Slow(BaseIntegration[Config]):
    """The integration: a chain of pages with items."""

    manifest = Manifest("slow", "Slow")

    def check(self) -> AccountIdentity:
        return AccountIdentity("slow", "Slow")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.page.task(page=0)])

    @task
    def page(self, ctx: Context, page: int) -> TaskResult:
        _sleep(ctx, self.config.page_seconds)
        first = page * self.config.items
        tasks = [self.item.task(number=first + index) for index in range(self.config.items)]
        if page + 1 < self.config.pages:
            tasks.append(self.page.task(page=page + 1))
        return TaskResult([TaskOutput(f"page-{page}", f"run {ctx.run.id}")], tasks=tasks)

    @task
    def item(self, ctx: Context, number: int) -> TaskResult:
        _sleep(ctx, self.config.item_seconds)
        return TaskResult([TaskOutput(f"item-{number}", "hello world " * 10)])


class Slower(Slow):
    """The same integration in another domain, which the same threads serve."""

    manifest = Manifest("slower", "Slower")


def _sleep(ctx: Context, seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not ctx.stopping:
        time.sleep(min(left, CHECK_SECONDS))


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Slow, Slower]
