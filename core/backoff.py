"""Exponential backoff: the pause before something that failed is tried again.

Only a breaker computes its pause elsewhere: in the statement that records the failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Draw = Callable[[float, float], float]
"""Returns a number between two bounds: `random.uniform`, or `max` for the longest pause."""

MAX_STEPS = 100
"""The number of steps after which a pause no longer grows, so that no power overflows."""


def growing_pause(
    first: float,
    longest: float,
    step: int,
    *,
    factor: float = 2.0,
    jitter: float = 0.0,
    draw: Draw = random.uniform,
) -> float:
    """Return the seconds of a pause that grows with each step.

    Args:
      first: The pause at step 0, in seconds.
      longest: The maximum, in seconds.
      step: The number of pauses before this one.
      factor: The factor between two steps. Default: 2.
      jitter: The share of the pause that is random, from 0 to 1. It prevents tasks that failed
        together from being tried again at the same time. Default: 0.
      draw: Returns the random number. Default: `random.uniform`.
    """
    pause = min(longest, first * factor ** min(step, MAX_STEPS))
    return draw(pause * (1 - jitter), pause)
