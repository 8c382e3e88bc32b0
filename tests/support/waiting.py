"""Waiting for conditions, never for times."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """What `condition` returns as soon as that is true.

    Raises:
      AssertionError: It did not come true in time; names `what` was waited for.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)
    return found
