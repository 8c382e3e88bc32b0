"""A check of an account counts against the limit of its connections."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel

from core.accounts.store import Account
from core.errors import ServerUnavailable
from core.integration.base import Integration
from core.integration.limits import Concurrency
from core.limits.keys import limit_key, lowered, overridden
from core.service.backend import Backend
from core.worker.slots import AccountSlots

WAIT_SECONDS = 20.0
"""The longest wait for a free connection, longer than most idle connections stay open."""

PAUSE_SECONDS = 0.25


@contextmanager
def check_slot(
    backend: Backend, account: Account, integration: Integration, config: BaseModel
) -> Iterator[None]:
    """Hold a place of the limit that counts an account's instances, if it has one.

    Args:
      backend: The engine.
      account: The account that is checked.
      integration: Its integration.
      config: Its config, which sets the limits.

    Raises:
      ServerUnavailable: Runs of the account use all its connections.
    """
    with backend.database.connection() as conn:
        overrides = backend.limits(conn).get(account.integration_domain, {})
    limits = overridden(integration.limits(config), overrides)
    counts = [limit for limit in limits if isinstance(limit, Concurrency)]
    limit = next((limit for limit in counts if limit.per_instance), None)
    if limit is None:
        yield
        return
    [allowed] = lowered([limit], account.limits)
    key = limit_key(
        limit,
        domain=account.integration_domain,
        account_id=str(account.id),
        group=account.limit_group,
    )
    slots = AccountSlots(backend.database.url)
    try:
        places = max(each.tasks for each in counts)
        slot = _take(slots, key, places, getattr(allowed, "tasks", None))
        yield
        slots.release(slot)
    finally:
        slots.close()


def _take(slots: AccountSlots, key: str, places: int, allowed: int | None) -> int:
    until = time.monotonic() + WAIT_SECONDS
    while (slot := slots.take(key, places, allowed)) is None:
        if time.monotonic() >= until:
            raise ServerUnavailable("connections-busy")
        time.sleep(PAUSE_SECONDS)
    return slot
