"""Functions that create accounts, runs and ticks directly."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel

from core.accounts import store
from core.integration.base import Integration
from core.ledger.scheduling import request_run
from core.limits.keys import to_json
from core.transport.messages import encode
from support.deployment import Deployment

_names = itertools.count(1)


def connect(
    deployment: Deployment,
    integration: Integration,
    config: Mapping[str, Any] | None = None,
    credentials: BaseModel | None = None,
    user: str = "tester",
    group: str | None = None,
) -> UUID:
    """Store an account of this integration, due immediately, without calling its `check`."""
    valid = integration.config_model.model_validate(config or {})
    name = f"account-{next(_names)}"
    with deployment.connection() as connection:
        account, _ = store.connect(
            connection,
            user_id=user,
            domain=integration.manifest.domain,
            name=name,
            identity=name,
            group=group,
            config=valid.model_dump(mode="json"),
            credentials=None if credentials is None else deployment.vault.seal(credentials),
            limits=to_json(integration.limits(valid)),
        )
    return account


def sync(deployment: Deployment, account: UUID) -> UUID:
    """Request a run, as `polling sync` does, and return its id."""
    with deployment.connection() as connection:
        run, _ = request_run(connection, account)
    deployment.queues.wake()
    return run


def tick(deployment: Deployment, times: int = 1) -> None:
    """Send `poll_due` messages, as periodiq does."""
    ids = [str(uuid4()) for _ in range(times)]
    deployment.queues.send("polling", {one: encode("polling", "poll_due", one, {}) for one in ids})


SET_DUE = """
UPDATE user_integration SET next_sync_at = now() WHERE id IN (
    SELECT id FROM user_integration WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE)
"""


def set_due(deployment: Deployment, *accounts: UUID) -> None:
    """Make accounts due now.

    The statement locks them in the engine's order: in another one, it and the end of runs may wait
    for each other.
    """
    deployment.rows(SET_DUE, list(accounts))
