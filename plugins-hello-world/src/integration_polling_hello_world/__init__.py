"""Hello World: an example integration for a made-up service with pages of greetings.

Read this file to learn how to write a plugin. The module `bench` lets tasks fail on purpose, and
computes the content that a sync must keep.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from pydantic import AwareDatetime, BaseModel

from core import (
    AccountIdentity,
    BaseIntegration,
    Bound,
    Context,
    Hints,
    ListenableAccount,
    Listener,
    Manifest,
    PermanentError,
    Rehearsal,
    RehearsalSection,
    Sample,
    Skipped,
    Task,
    TaskOutput,
    TaskResult,
    WebhookRequest,
    WebhookResponse,
    hookimpl,
    task,
)
from integration_polling_hello_world.bench import Config, expected, fail_on_purpose, greeting
from integration_polling_hello_world.events import HelloSettings, answer, receive

__all__ = ["Config", "HelloWorld", "expected", "integrations"]

STATE = "runs"
LONG_MS = 1_000
"""A task that takes this long reports its progress, in tenths."""

SAMPLED = 3
"""Pages that the rehearsal names."""

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

    manifest = Manifest("hello-world", "Hello World", settings=HelloSettings)

    def check(self) -> AccountIdentity:
        """Return an identity that the name alone decides; there is nothing to connect to."""
        return AccountIdentity(self.config.name, f"Hello {self.config.name}")

    def rehearse(self) -> Rehearsal:
        """Say how many pages and items a run lists, and refuse shares that make no sense."""
        config = self.config
        section = RehearsalSection(
            "Greetings",
            {"Pages": config.pages, "Items on a page": config.items},
            [Sample(f"Page {page}") for page in range(1, min(config.pages, SAMPLED) + 1)],
            omitted=max(0, config.pages - SAMPLED),
        )
        failing = sum(config.fail_rate.values())
        return Rehearsal(
            [section],
            [f"{failing:.0%} of the tasks fail on purpose."] if failing else [],
            "the shares in fail_rate exceed 1" if failing > 1 else None,
            Bound(config.pages * config.items, "greetings"),
        )

    @classmethod
    def listeners(
        cls, settings: BaseModel | None, accounts: Iterable[ListenableAccount]
    ) -> Sequence[Listener]:
        """Listen for all accounts together, if the operator has named a source of events."""
        if not isinstance(settings, HelloSettings):  # a subclass has another manifest
            return []
        listens = bool(settings.hello_world_events)
        if not listens and not settings.hello_world_webhook_secret.get_secret_value():
            return []
        # An event names an account as `check` identifies it.
        return [Listener("events", {each.id: each.identity for each in accounts}, listens)]

    @classmethod
    # One server sends the events of all accounts.
    def listen(cls, listener: Listener, hints: Hints, stopping: threading.Event) -> None:  # noqa: ARG003
        """Turn each line of the service's server into a hint."""
        receive(HelloSettings().hello_world_events, hints, stopping)

    @classmethod
    def webhook(cls, request: WebhookRequest) -> WebhookResponse:
        """Check the signature, and turn the event into a hint."""
        given = request.settings
        return answer(request, given if isinstance(given, HelloSettings) else HelloSettings())

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
