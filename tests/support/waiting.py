"""Wait for conditions instead of fixed times."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = float(os.environ.get("POLLING_TEST_PATIENCE", "1"))
"""The factor of all time limits, for a machine that does other work. Default: 1."""


def until(condition: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """Wait until `condition` returns a true value, and return that value.

    Args:
      condition: Called every 50 ms.
      what: A description of the condition for the error.
      seconds: The time limit, which `PATIENCE` multiplies. Default: 20.

    Raises:
      AssertionError: The condition is still false after the time limit.
    """
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)
    return found
