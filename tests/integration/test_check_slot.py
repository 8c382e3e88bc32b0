"""A check of an account counts against the limit of its connections."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from integration_polling_hello_world import HelloWorld
from support.accounts import connect
from support.deployment import Deployment

from core import Concurrency
from core.accounts import store
from core.db.pool import Database
from core.errors import ServerUnavailable
from core.limits.keys import limit_key
from core.service.accounts import check_slot as module
from core.worker.slots import AccountSlots

LIMIT = Concurrency("connections", 2, per_instance=True)


class Connected(HelloWorld):
    """Hello World with two connections."""

    manifest = replace(HelloWorld.manifest, limits=[LIMIT])


def test_a_check_waits_for_a_connection_and_fails_without_one(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.6)
    id = connect(deployment, Connected)
    with deployment.connection() as connection:
        account = store.load(connection, id)
    database, slots = Database(deployment.database_url), AccountSlots(deployment.database_url)
    backend = cast("Any", SimpleNamespace(database=database, limits=lambda _: {}))
    config = Connected.config_model()
    key = limit_key(LIMIT, domain="hello-world", account_id=str(id), group=account.limit_group)
    try:
        first = slots.take(key, 2)
        with module.check_slot(backend, account, Connected, config):
            assert slots.count(key, 2) == 2
            assert slots.take(key, 2) is None
        second = slots.take(key, 2)
        assert first is not None
        assert second is not None
        with (
            pytest.raises(ServerUnavailable, match="connections"),
            module.check_slot(backend, account, Connected, config),
        ):
            pass
        slots.release(second)
        with module.check_slot(backend, account, Connected, config):
            assert slots.count(key, 2) == 2
    finally:
        slots.close()
        database.close()
