"""The result of one check of `polling doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import Advice, PollingError
from core.service.backend import CheckStatus


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
      name: The part that was checked.
      status: `fail`: it does not work; `warn`: it works, but needs attention; `ok`.
      message: The finding, in one line.
      advice: The next step.
    """

    name: str
    status: CheckStatus
    message: str
    advice: Advice | None = None


def failed(name: str, error: Exception) -> Check:
    """Return the result for a part that raised `error`, with the advice of a `PollingError`."""
    return Check(
        name, "fail", str(error), error.advice if isinstance(error, PollingError) else None
    )
