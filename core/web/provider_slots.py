"""A limit on concurrent requests that wait for a provider.

A provider may be slow. The limit leaves threads for other requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from core.service.backend import Backend
from core.web.problems import HttpProblem


@contextmanager
def provider_slot(backend: Backend) -> Iterator[None]:
    """Reserve a slot during a call to a provider.

    Raises:
      HttpProblem: All slots are in use.
    """
    if not backend.provider_slots.acquire(blocking=False):
        raise HttpProblem("checks-busy")
    try:
        yield
    finally:
        backend.provider_slots.release()
