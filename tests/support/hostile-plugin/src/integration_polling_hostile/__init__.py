"""Hostile: tasks that do what no plugin should, beside innocent neighbours.

What they do stands in `deeds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, Field, NonNegativeInt, SecretStr

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    Manifest,
    Rate,
    Task,
    TaskOutput,
    TaskResult,
    hookimpl,
    task,
)
from integration_polling_hostile.deeds import DEEDS

__all__ = ["Config", "Credentials", "Endless", "Hostile", "integrations"]


class Config(BaseModel, extra="forbid"):
    """What the tasks of a run do."""

    deeds: list[str] = Field(
        default_factory=list, description="Names in `deeds.DEEDS`, a task for each"
    )
    retry_after: Any = Field(None, description="What a rate-limited answer says, garbage included")
    flood: NonNegativeInt = Field(0, description="Follow-ups of one task")
    neighbours: NonNegativeInt = Field(
        10, description="Innocent tasks, half of them before the others"
    )
    neighbour_ms: NonNegativeInt = Field(5, description="How long each of them works")


class Credentials(BaseModel):
    """A secret to give away."""

    token: SecretStr = SecretStr("")


class Hostile(BaseIntegration[Config, Credentials]):
    """Every deed is a task of its own, `misbehave`."""

    manifest = Manifest("hostile", "Hostile", limits=[Rate("quota", 1_000_000, 1.0)])

    def check(self) -> AccountIdentity:
        return AccountIdentity("hostile", "Hostile")

    def start(self, ctx: Context) -> TaskResult:
        neighbours = [
            self.neighbour.task(number=number) for number in range(self.config.neighbours)
        ]
        bad = [
            self.misbehave.task(deed=deed, number=number)
            for number, deed in enumerate(self.config.deeds)
        ]
        floods = [self.flood.task()] if self.config.flood else []
        half = len(neighbours) // 2
        return TaskResult(tasks=_in_order([*neighbours[:half], *bad, *floods, *neighbours[half:]]))

    @task
    def neighbour(self, ctx: Context, number: int) -> TaskResult:
        """An innocent task."""
        DEEDS["sleep"](self, ctx)
        return TaskResult([TaskOutput(f"neighbour-{number}", "all is well", kind="neighbour")])

    @task(time_limit=1)
    def misbehave(self, ctx: Context, deed: str, number: int) -> TaskResult:
        """The deed of this name; `number` tells two of them apart."""
        result: TaskResult = DEEDS[deed](self, ctx)
        return result

    @task(cost={"quota": 1})
    def frugal(self, ctx: Context) -> TaskResult:
        """A task that needs a budget before it runs."""
        return TaskResult([TaskOutput("frugal", "within its means")])

    @task
    def flood(self, ctx: Context) -> TaskResult:
        """So many follow-ups at once."""
        return TaskResult(
            tasks=(self.noop.task(number=number) for number in range(self.config.flood))
        )

    @task
    def noop(self, ctx: Context, number: int) -> TaskResult:
        """Nothing."""
        return TaskResult()


class Endless(BaseIntegration):
    """A run whose tasks always have one more follow-up; some with one key, some with ever new
    ones.
    """

    manifest = Manifest("hostile-endless", "Endless", max_tasks=100)

    def check(self) -> AccountIdentity:
        return AccountIdentity("endless", "Endless")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.circle.task(), self.spiral.task(turn=0)])

    @task
    def circle(self, ctx: Context) -> TaskResult:
        """Itself again: the same key, so it runs once."""
        return TaskResult(tasks=[self.circle.task()])

    @task
    def spiral(self, ctx: Context, turn: int) -> TaskResult:
        """Itself again with a new key: the bound of a run ends it."""
        return TaskResult(tasks=[self.spiral.task(turn=turn + 1)])


def _in_order(tasks: Sequence[Task]) -> list[Task]:
    return [replace(one, priority=-place) for place, one in enumerate(tasks)]


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Hostile, Endless]
