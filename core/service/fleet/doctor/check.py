"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import Advice, PollingError
from core.service.fleet.health import CheckStatus


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
      name: What.
      status: `fail`: it does not work; `warn`: someone should look; `ok`.
      message: What was found.
      advice: What to do.
    """

    name: str
    status: CheckStatus
    message: str
    advice: Advice | None = None


def failed(name: str, error: Exception) -> Check:
    """The check of something that raised; a `PollingError` brings its own advice."""
    return Check(
        name, "fail", str(error), error.advice if isinstance(error, PollingError) else None
    )
