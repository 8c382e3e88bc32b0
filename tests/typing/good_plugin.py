"""An example of a plugin; every line of it passes mypy --strict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, SecretStr

from core import (
    AccountIdentity,
    BaseIntegration,
    Concurrency,
    Context,
    CursorExpired,
    Limit,
    Listing,
    Manifest,
    Rate,
    RateLimited,
    SkipItem,
    Task,
    TaskOutput,
    TaskResult,
    hookimpl,
    task,
)


class Config(BaseModel):
    folder: str = "/"


class Credentials(BaseModel):
    token: SecretStr


class Cursor(BaseModel):
    at: int


class Shop(BaseIntegration[Config, Credentials]):
    manifest = Manifest(
        "shop", "Shop", limits=[Rate("quota", 100, 60.0, by="group"), Concurrency("connections", 4)]
    )

    @classmethod
    def limits(cls, config: Config) -> Sequence[Limit]:
        return [Concurrency("connections", len(config.folder))]

    def check(self) -> AccountIdentity:
        return AccountIdentity(self.credentials.token.get_secret_value(), self.config.folder)

    def refresh(self) -> Credentials:
        return Credentials(token=self.credentials.token)

    def start(self, ctx: Context) -> TaskResult:
        cursor = ctx.state("history", Cursor)
        first = self.page.task(number=cursor.at if cursor is not None else 0)
        return TaskResult(
            tasks=[
                first,
                replace(self.item.task("a", since=datetime.now(UTC)), key="a", background=True),
            ]
        )

    @task
    def page(self, ctx: Context, number: int) -> TaskResult:
        ids = [str(item) for item in range(number) if str(item) not in ctx.fingerprints(["1"])]
        return TaskResult(
            output=(TaskOutput(id, "text", metadata={"n": number}) for id in ids),
            tasks=self.items(ids),
            state={"history": Cursor(at=number), "old": None},
            seen=ids,
            listed=[Listing("box", since=datetime.now(UTC))],
        )

    @task(cost={"quota": 3}, time_limit=60)
    def item(self, ctx: Context, id: str, since: datetime | None = None) -> TaskResult:
        if ctx.stopping:
            raise SkipItem("later")
        if since is None:
            raise RateLimited("slow", retry_after=1.5, limit="quota")
        with ctx.blob(id) as f:
            f.write(b"x" * f.tell())
        ctx.charge("quota", 2)
        return TaskResult(
            [
                TaskOutput(id, f.blob),
                TaskOutput.gone("b"),
                TaskOutput.update("c", metadata={"read": True}),
            ]
        )

    def items(self, ids: list[str]) -> Iterator[Task]:
        for id in ids:
            yield self.item.task(id=id)


def direct(shop: Shop, ctx: Context) -> TaskResult:
    if not ctx.task.attempt:
        raise CursorExpired("history")
    return shop.page(ctx, 3)


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Shop]
