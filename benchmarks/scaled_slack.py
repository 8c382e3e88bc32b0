"""Slack in scaled time: the plugin with a clock and limits that run faster.

The setting POLLING_PLUGINS loads this module. An hour of Slack takes `3600 / SLACK_BENCH_SCALE`
seconds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from integration_polling_slack import Config, Slack
from integration_polling_slack.account import SlackSettings
from pydantic import Field, PositiveFloat

from core import BaseIntegration, Context, Limit, Rate, Task, TaskResult, hookimpl

DOMAIN = "slack-scaled"


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that is right at `origin`, and runs `scale` times as fast. Times are Unix seconds."""

    scale: float
    origin: float

    def slack(self, real: float) -> float:
        """Return the time of Slack at a real time."""
        return self.origin + (real - self.origin) * self.scale

    def real(self, slack: float) -> float:
        """Return the real time at a time of Slack."""
        return self.origin + (slack - self.origin) / self.scale


class ScaledSettings(SlackSettings):
    """The settings of Slack, with the clock."""

    scale: PositiveFloat = Field(1.0, validation_alias="SLACK_BENCH_SCALE")
    origin: float = Field(0.0, validation_alias="SLACK_BENCH_ORIGIN")

    @property
    def clock(self) -> Clock:
        return Clock(self.scale, self.origin)


class _ScaledContext:
    """The context of a task, with the time of the clock."""

    def __init__(self, ctx: Context, clock: Clock) -> None:
        self._ctx, self._clock = ctx, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.slack(time.time()), UTC)


class ScaledSlack(Slack):
    """The Slack integration in scaled time."""

    manifest = replace(Slack.manifest, domain=DOMAIN, settings=ScaledSettings)

    @classmethod
    def limits(cls, config: Config) -> Sequence[Limit]:
        scale = ScaledSettings().scale
        return [
            replace(one, per=one.per / scale) if isinstance(one, Rate) else one
            for one in Slack.limits(config)
        ]

    def run_task(self, task: Task, ctx: Context) -> TaskResult:
        scaled: Any = _ScaledContext(ctx, ScaledSettings().clock)
        return super().run_task(task, scaled)


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [ScaledSlack]
