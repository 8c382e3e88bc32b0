"""An integration for the service of `benchmarks.source`, as a plugin author would write it.

It has one task for each page and one for each item.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    Manifest,
    TaskOutput,
    TaskResult,
    TransientError,
    hookimpl,
    task,
)


class Config(BaseModel):
    """The config of an account: the URL of the service."""

    url: str


class Listed(BaseIntegration[Config]):
    """The integration; each instance keeps one connection open."""

    manifest = Manifest("listed", "Listed items")

    def initialize(self) -> None:
        self._http = http.client.HTTPConnection(urlsplit(self.config.url).netloc, timeout=30)

    def close(self) -> None:
        self._http.close()

    def check(self) -> AccountIdentity:
        return AccountIdentity(self.config.url, "Listed items")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.page.task(number=0)])

    @task
    def page(self, ctx: Context, number: int) -> TaskResult:
        found = self._get(f"/pages/{number}")
        tasks = [self.item.task(id=id) for id in found["ids"]]
        if found["next"] is not None:
            # Pages have priority over items, so that the workers never run out of tasks.
            tasks.append(replace(self.page.task(number=found["next"]), priority=1))
        return TaskResult(tasks=tasks)

    @task
    def item(self, ctx: Context, id: str) -> TaskResult:
        found = self._get(f"/items/{id}")
        return TaskResult(
            [
                TaskOutput(
                    found["id"],
                    found["text"],
                    name=found["name"],
                    timestamp=datetime.fromisoformat(found["created"]),
                )
            ]
        )

    def _get(self, path: str) -> Any:
        try:
            self._http.request("GET", path)
            return json.loads(self._http.getresponse().read())
        except (OSError, http.client.HTTPException) as error:
            self._http.close()  # the next request reconnects
            raise TransientError(f"GET {path}: {error}") from error


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Listed]
