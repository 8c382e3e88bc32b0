"""Two versions of one plugin, for deploys that are under way: the environment says which one a
program has installed.

The second one has a task that the first does not know, and a parameter, with a default, that the
first does not know either.
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
    """Pages, each a task that brings one item."""

    manifest = Manifest("rolling", "Rolling")

    def check(self) -> AccountIdentity:
        return AccountIdentity("rolling", "Rolling")

    def start(self, ctx: Context) -> TaskResult:
        # One after the other: a deploy has to meet a run that goes on.
        return TaskResult(tasks=[self.first()])

    def first(self) -> Task:
        return self.page.task(number=1)

    @task
    def page(self, ctx: Context, number: int) -> TaskResult:
        """A page, and the next one."""
        more = [Task("page", {"number": number + 1})] if number < self.config.pages else []
        return TaskResult([TaskOutput(f"page-{number}", "text")], more)


class Rolling2(Rolling):
    """The same pages; each has an appendix."""

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
        """What only this version knows."""
        return TaskResult([TaskOutput(f"appendix-{number}", "text")])


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Rolling2 if os.environ[VERSION] == "2" else Rolling]
