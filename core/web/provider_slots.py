"""A limit on concurrent requests that wait for a provider.

A provider may be slow. The limit leaves threads for other requests.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from core.web.problems import HttpProblem

MAX_CONCURRENT_CALLS = 16
"""The maximum number of concurrent provider calls, out of 40 request threads."""

_slots = threading.BoundedSemaphore(MAX_CONCURRENT_CALLS)


@contextmanager
def provider_slot() -> Iterator[None]:
    """Reserve a slot during a call to a provider.

    Raises:
      HttpProblem: All slots are in use.
    """
    if not _slots.acquire(blocking=False):
        raise HttpProblem("checks-busy")
    try:
        yield
    finally:
        _slots.release()
