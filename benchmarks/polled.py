"""An integration whose polls find nothing.

The setting POLLING_PLUGINS loads this module. The config of an account has the seconds that its
provider takes to answer.
"""

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
    TaskResult,
    hookimpl,
)


class Config(BaseModel):
    """The config of an account: the seconds that a request takes."""

    seconds: float = 0.0


class Polled(BaseIntegration[Config]):
    """The integration: one request for each poll, and nothing new."""

    manifest = Manifest("polled", "Polled")

    def check(self) -> AccountIdentity:
        return AccountIdentity("polled", "Polled")

    def start(self, ctx: Context) -> TaskResult:
        if self.config.seconds:
            time.sleep(self.config.seconds)
        return TaskResult()


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Polled]
