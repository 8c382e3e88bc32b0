"""The limit on requests that wait for a provider."""

from __future__ import annotations

from contextlib import AbstractContextManager

from core.service.backend import Backend


def provider_slot(backend: Backend, user: str | None = None) -> AbstractContextManager[None]:
    """Reserve a slot during a call to a provider.

    Args:
      backend: The backend.
      user: The user whose token or session makes the request. Default: None, an operator.

    Raises:
      ServerUnavailable: All slots are in use.
      TooManyRequests: The user has too many calls in progress, or too many in this hour.
    """
    return backend.provider_slots.slot(backend.queues, user)
