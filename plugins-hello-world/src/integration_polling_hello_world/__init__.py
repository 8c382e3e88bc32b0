"""Hello World: an example integration for a made-up service with pages of greetings.

Read this file to learn how to write a plugin. The module `bench` lets tasks fail on purpose, and
computes the content that a sync must keep.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import AwareDatetime, BaseModel

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    Manifest,
    PermanentError,
    Skipped,
    Task,
    TaskOutput,
    TaskResult,
    hookimpl,
    task,
)
from integration_polling_hello_world.bench import (
    Config,
    Settings,
    expected,
    fail_on_purpose,
    greeting,
)

__all__ = ["Config", "HelloWorld", "expected", "integrations"]

STATE = "runs"
LONG_MS = 1_000
"""A task that takes this long reports its progress, in tenths."""

GROWN = "grown"
"""The parent of the items that runs add."""


class Runs(BaseModel):
    """The state between runs: the number of runs so far, and the time of the latest one."""

    count: int = 0
    latest: AwareDatetime | None = None


class HelloWorld(BaseIntegration[Config]):
    """An integration whose source is the same in every run, unless `grow` adds items.

    Without `grow`, a second run finds nothing new.
    """

    manifest = Manifest("hello-world", "Hello World", settings=Settings)

    def check(self) -> AccountIdentity:
        """Return an identity that the name alone decides; there is nothing to connect to."""
        return AccountIdentity(self.config.name, f"Hello {self.config.name}")

    def start(self, ctx: Context) -> TaskResult:
        """Return one task for each page, and one each for added and for fetched items.

        A hint names the number of a page. A run that hints made looks at these pages only.
        """
        grow = [self.grow.task()] if self.config.grow else []
        fetch = [self.fetch.task(url=self.config.url)] if self.config.url else []
        pages = [
            replace(self.list_page.task(page=page + 1), delay=page * self.config.pause_ms / 1000)
            for page in range(self.config.pages)
            if not ctx.hints or str(page + 1) in ctx.hints
        ]
        return TaskResult(tasks=[*grow, *fetch, *pages])

    @task
    def list_page(self, ctx: Context, page: int) -> TaskResult:
        """Return the items of a page: as output, or as one task for each item of a deeper tree."""
        self._work(ctx, f"page-{page}")
        hidden = range(self.config.items, self.config.items + self.config.hidden)
        skipped = [Skipped(f"{page}-{item}", "hidden") for item in hidden]
        if self.config.fanout_depth:
            return TaskResult(tasks=self._items(str(page), level=0), skipped=skipped)
        return TaskResult(
            (self._greeting(f"{page}-{item}", str(page)) for item in range(self.config.items)),
            skipped=skipped,
        )

    @task
    def make_item(self, ctx: Context, id: str, parent: str, level: int) -> TaskResult:
        """Return one item, and tasks for the items below it."""
        self._work(ctx, id)
        below = self._items(id, level + 1) if level < self.config.fanout_depth else []
        return TaskResult([self._greeting(id, parent)], below)

    @task
    def grow(self, ctx: Context) -> TaskResult:
        """Return the items that earlier runs have not added yet, and those that this one adds.

        The transaction that saves them also advances the counter.
        """
        runs = ctx.state(STATE, Runs) or Runs()
        kept = ctx.fingerprints(parent=GROWN)
        all_ids = [f"grown-{item}" for item in range(self.config.grow * runs.count)]
        new = [self._greeting(id, GROWN) for id in all_ids if id not in kept]
        return TaskResult(
            new,
            state={STATE: Runs(count=runs.count + 1, latest=ctx.now)},
            unchanged=len(all_ids) - len(new),
        )

    @task
    def fetch(self, ctx: Context, url: str) -> TaskResult:
        """Return the lines of a text file on a web server, each as an item."""
        answer = ctx.http.get(url)
        if answer.status_code != 200:
            raise PermanentError(f"the server of the greetings answered {answer.status_code}")
        lines = enumerate(answer.text.splitlines(), 1)
        return TaskResult(
            TaskOutput(f"fetched-{number}", line, kind="greeting", parent="fetched")
            for number, line in lines
        )

    def _work(self, ctx: Context, name: str) -> None:
        steps = 10 if self.config.delay_ms >= LONG_MS else 1
        for step in range(steps if self.config.delay_ms else 0):
            time.sleep(self.config.delay_ms / steps / 1000)
            if steps > 1:
                ctx.progress(step + 1, steps)
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
