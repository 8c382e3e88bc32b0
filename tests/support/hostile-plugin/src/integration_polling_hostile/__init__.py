"""A hostile plugin: tasks that misbehave, beside innocent neighbours.

The module `deeds` has the misbehaviour.
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
    """The config of an account: the tasks of a run."""

    deeds: list[str] = Field(
        default_factory=list, description="Names in `deeds.DEEDS`, with one task for each"
    )
    retry_after: Any = Field(
        None, description="The wait of a rate-limited answer, possibly invalid"
    )
    flood: NonNegativeInt = Field(0, description="The number of follow-ups of one task")
    neighbours: NonNegativeInt = Field(
        10, description="The number of innocent tasks, half of them before the others"
    )
    neighbour_ms: NonNegativeInt = Field(5, description="The milliseconds of each innocent task")


class Credentials(BaseModel):
    """The credentials: a secret to leak."""

    token: SecretStr = SecretStr("")


class Hostile(BaseIntegration[Config, Credentials]):
    """An integration with one task, `misbehave`, for each deed."""

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
        """Save one item."""
        DEEDS["sleep"](self, ctx)
        return TaskResult([TaskOutput(f"neighbour-{number}", "all is well", kind="neighbour")])

    @task(time_limit=1)
    def misbehave(self, ctx: Context, deed: str, number: int) -> TaskResult:
        """Do the deed of this name; `number` distinguishes tasks with the same deed."""
        result: TaskResult = DEEDS[deed](self, ctx)
        return result

    @task(cost={"quota": 1})
    def frugal(self, ctx: Context) -> TaskResult:
        """Save one item; the task needs units of a budget before it runs."""
        return TaskResult([TaskOutput("frugal", "within its means")])

    @task
    def flood(self, ctx: Context) -> TaskResult:
        """Return a large number of follow-ups."""
        return TaskResult(
            tasks=(self.noop.task(number=number) for number in range(self.config.flood))
        )

    @task
    def noop(self, ctx: Context, number: int) -> TaskResult:
        """Do nothing."""
        return TaskResult()


class Endless(BaseIntegration):
    """An integration whose tasks always return a follow-up, with the same key or with new keys."""

    manifest = Manifest("hostile-endless", "Endless", max_tasks=100)

    def check(self) -> AccountIdentity:
        return AccountIdentity("endless", "Endless")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.circle.task(), self.spiral.task(turn=0)])

    @task
    def circle(self, ctx: Context) -> TaskResult:
        """Return the same task: it has the same key, so it runs once."""
        return TaskResult(tasks=[self.circle.task()])

    @task
    def spiral(self, ctx: Context, turn: int) -> TaskResult:
        """Return the task with a new key: only the bound of a run stops it."""
        return TaskResult(tasks=[self.spiral.task(turn=turn + 1)])


def _in_order(tasks: Sequence[Task]) -> list[Task]:
    return [replace(one, priority=-place) for place, one in enumerate(tasks)]


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Hostile, Endless]
