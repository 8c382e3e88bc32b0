"""Two deployments share one Redis and namespace: an original and a copy of its database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.servers import Servers

CONFIG = {"pages": 8, "items": 8, "fanout_depth": 1, "delay_ms": 10}

REPORT = "another deployment uses this Redis"


@pytest.mark.timeout(120)
def test_a_copy_of_the_database_waits_until_the_original_stops(
    make_fleet: Callable[..., Fleet],
    deployment: Deployment,
    own_servers: Servers,
    tmp_path: Path,
) -> None:
    """The copy has the same epoch, ids and keys. It dispatches and takes nothing, and says so.

    When the original stops, the copy takes over.
    """
    first, second = (connect(deployment, HelloWorld, CONFIG) for _ in range(2))
    original = make_fleet()
    program = original.workers(processes=1)
    original.ready()
    copy = duplicate(deployment, tmp_path / "copy")
    beside = Fleet(copy, tmp_path / "copy")
    try:
        beside.workers(processes=1)
        beside.ready()
        sync(copy, second)
        beside.until(lambda: REPORT in beside.says(), "the copy reports the original")
        sync(deployment, first)
        oracle.wait_for_quiet(original, 40, replace=False)
        oracle.assert_synced(original, first, CONFIG)
        assert deployment.value("SELECT max(dispatch_no) FROM sync_task") == 1
        assert copy.value("SELECT max(dispatch_no) FROM sync_task") == 0
        assert beside.says().count(REPORT) == 1
        assert REPORT not in original.says()
        assert program.terminate() == 0
        oracle.wait_for_quiet(beside, 40, replace=False)
        oracle.assert_synced(beside, second, CONFIG)
    finally:
        beside.end()
        print(beside.says()[-20_000:])
        copy.close()


def duplicate(deployment: Deployment, home: Path) -> Deployment:
    """Copy a database, as for a staging system; keep its namespace and its keys."""
    home.mkdir()
    name = deployment.namespace
    deployment.rows("SELECT count(*) FROM engine_state")
    with psycopg.connect(
        deployment.database_url.replace(f"/{name}", "/postgres"), autocommit=True
    ) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
        while True:
            try:
                connection.execute(f'CREATE DATABASE "{name}-copy" TEMPLATE "{name}"')
                break
            except psycopg.errors.ObjectInUse:
                continue
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    return Deployment(
        deployment.database_url.replace(f"/{name}", f"/{name}-copy"),
        deployment.redis_url,
        home,
        name,
        deployment.secret_key,
    )
