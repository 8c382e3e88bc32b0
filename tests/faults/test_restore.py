"""PostgreSQL is restored to a point in time while workers run: rows, blobs and keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import pytest
from integration_polling_hello_world import HelloWorld
from integration_polling_hostile import Credentials
from pydantic import SecretStr
from support import oracle
from support.accounts import connect, sync
from support.backups import archiving
from support.deployment import Deployment
from support.fleet import Fleet
from support.servers import Servers

from core.accounts.vault import Vault, new_key
from core.content.blobs import Blobs
from core.db.pool import Database
from core.service.accounts import key_rotation
from core.service.fleet.doctor import keys as doctor

CONFIG = {"pages": 5, "items": 6}
SLOW = {"pages": 6, "items": 4, "fanout_depth": 1, "delay_ms": 300}

NOW = "SELECT clock_timestamp()"
QUEUED = "SELECT count(*) FROM sync_task WHERE state = 'queued' AND type <> 'start'"
OF_ITEM = "WHERE user_integration_id = %s AND external_id = '1-1'"
NAME_BLOB = f"UPDATE user_integration_content SET blob_key = %s {OF_ITEM}"
NAMED = f"SELECT blob_key FROM user_integration_content {OF_ITEM}"
AGE = """
UPDATE blob SET touched_at = touched_at - interval '2 days',
    unreferenced_at = unreferenced_at - interval '2 hours'
"""
SEAL = "UPDATE user_integration SET credentials = %s WHERE id = %s"
SEALED = "SELECT credentials FROM user_integration WHERE id = %s"


@dataclass
class Backend:
    """The parts of a backend that a rotation uses."""

    database: Database
    vault: Vault


@pytest.mark.timeout(240)
def test_a_restore_to_a_point_in_time_with_workers_running(
    make_fleet: Callable[..., Fleet], deployment: Deployment, own_servers: Servers
) -> None:
    keys = [new_key(), deployment.secret_key]
    fleet = make_fleet(POLLING_LEASE_SECONDS="60", POLLING_SECRET_KEYS=",".join(keys))
    with archiving(own_servers.postgres) as archive:
        fleet.workers()
        fleet.ready(40)
        pids = fleet.worker_pids()
        before, after = (
            connect(deployment, HelloWorld, CONFIG),
            connect(deployment, HelloWorld, CONFIG),
        )
        archive.back_up()
        database = Database(deployment.database_url)
        blobs = Blobs(database, str(deployment.home / "blobs"), deployment.home / "spool")

        sync(deployment, before)
        oracle.wait_for_quiet(fleet, 40, replace=False)
        old = blobs.put(b"old")
        deployment.rows(NAME_BLOB, old, before)
        credentials = Credentials(password=SecretStr("secret"))
        deployment.rows(SEAL, Vault(keys[1:]).seal(credentials), before)
        to = deployment.value(NOW)

        # Later, the item gets another blob, the key is rotated, and tasks run.
        deployment.rows(NAME_BLOB, blobs.put(b"new"), before)
        for _ in range(3):
            deployment.rows(AGE)
            blobs.collect()
        list(key_rotation.rotate(Backend(database, Vault(keys))))  # type: ignore[arg-type]
        assert Vault(keys[:1]).key_of(deployment.value(SEALED, before)) is not None
        sync(deployment, after)
        lost = connect(deployment, HelloWorld, SLOW)
        sync(deployment, lost)
        fleet.until(lambda: deployment.value(QUEUED), "tasks run")
        database.close()
        archive.restore(to)

        _check_rows(fleet, deployment, before, after, lost)
        assert fleet.worker_pids() == pids
        assert deployment.value(NAMED, before) == old
        assert blobs.get(old) == b"old"
        _check_keys(deployment, keys, before)
        fleet.end()


def _check_rows(
    fleet: Fleet, deployment: Deployment, before: UUID, after: UUID, lost: UUID
) -> None:
    """The first account keeps its content, the lost one leaves nothing, the others are synced."""
    assert not deployment.rows("SELECT id FROM user_integration WHERE id = %s", lost)
    content = dict(deployment.rows(oracle.CONTENT, before))
    assert content == oracle.expected(CONFIG)
    again = connect(deployment, HelloWorld, SLOW)
    sync(deployment, again)
    sync(deployment, after)
    oracle.wait_for_quiet(fleet, 90, replace=False)
    oracle.assert_synced(fleet, again, SLOW)
    oracle.assert_content(deployment, after, oracle.expected(CONFIG))
    oracle.assert_nobody_convicted(deployment)
    assert not deployment.rows(oracle.CONTENT, lost)
    assert not deployment.value("SELECT count(*) FROM sync_task WHERE state = 'parked'")


def _check_keys(deployment: Deployment, keys: list[str], account: UUID) -> None:
    """The credentials need the old key again; `doctor` says so, and a rotation repeats."""
    database = Database(deployment.database_url)
    with database.connection() as conn:
        found = next(iter(doctor.examine(conn, keys[:1])))
        assert found.status == "fail"
        assert str(account) in found.message
        assert next(iter(doctor.examine(conn, keys))).status == "ok"
    list(key_rotation.rotate(Backend(database, Vault(keys))))  # type: ignore[arg-type]
    database.close()
    assert Vault(keys[:1]).key_of(deployment.value(SEALED, account)) is not None
