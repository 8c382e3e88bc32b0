"""A bound on concurrent requests that wait for a provider.

A provider may be slow, and other requests need threads in the meantime.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from core.web.problems import HttpProblem

MAX_CONCURRENT_CALLS = 16
"""Of the 40 threads that answer requests."""

_slots = threading.BoundedSemaphore(MAX_CONCURRENT_CALLS)


@contextmanager
def provider_slot() -> Iterator[None]:
    """Around everything that asks a provider.

    Raises:
      Refused: Too many do already.
    """
    if not _slots.acquire(blocking=False):
        raise HttpProblem("checks-busy")
    try:
        yield
    finally:
        _slots.release()
