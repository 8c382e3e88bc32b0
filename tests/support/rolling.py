"""Two versions of one plugin, for tests of rolling deploys.

The environment names the version that a program has installed. The second version adds a task, and
a parameter with a default.
"""

from __future__ import annotations

import os
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

VERSION = "ROLLING_VERSION"


class Config(BaseModel):
    pages: int = 60


class Rolling(BaseIntegration[Config]):
    """The first version: each page is a task with one item."""

    manifest = Manifest("rolling", "Rolling")

    def check(self) -> AccountIdentity:
        return AccountIdentity("rolling", "Rolling")

    def start(self, ctx: Context) -> TaskResult:
        # The pages follow each other, so that the run lasts until the deploy.
        return TaskResult(tasks=[self.first()])

    def first(self) -> Task:
        return self.page.task(number=1)

    @task
    def page(self, ctx: Context, number: int) -> TaskResult:
        """Save the item of a page, and return the next page."""
        more = [Task("page", {"number": number + 1})] if number < self.config.pages else []
        return TaskResult([TaskOutput(f"page-{number}", "text")], more)


class Rolling2(Rolling):
    """The second version: the same pages, each with an appendix."""

    def first(self) -> Task:
        return self.page.task(number=1, appendix="new")

    @task
    def page(self, ctx: Context, number: int, appendix: str = "old") -> TaskResult:
        more = [Task("appendix", {"number": number})]
        if number < self.config.pages:
            more.append(Task("page", {"number": number + 1, "appendix": appendix}))
        return TaskResult([TaskOutput(f"page-{number}", "text")], more)

    @task
    def appendix(self, ctx: Context, number: int) -> TaskResult:
        """Save the appendix of a page; only this version has the task."""
        return TaskResult([TaskOutput(f"appendix-{number}", "text")])


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Rolling2 if os.environ[VERSION] == "2" else Rolling]
