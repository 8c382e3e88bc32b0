"""Wait for conditions instead of fixed times."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """Wait until `condition` returns a true value, and return that value.

    Parameters:
      condition: Called every 50 ms.
      what: A description of the condition for the error.
      seconds: The time limit. Default: 20.

    Raises:
      AssertionError: The condition is still false after the time limit.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)
    return found
