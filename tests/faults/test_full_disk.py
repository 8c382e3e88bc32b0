"""PostgreSQL's disk is full: nothing parks, the leader stays, and `/readyz` reports it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync, tick
from support.deployment import Deployment
from support.fleet import Fleet
from support.full_disk import SmallDisk, failing, small_disk
from support.ordeal import ATTEMPTS
from support.servers import Servers
from support.serving import Served, polling_serve

CONFIG = {"pages": 4, "items": 6, "fanout_depth": 1, "delay_ms": 100}
SLOWER = oracle.LARGE | {"delay_ms": 50}

LEADER = "SELECT leader FROM engine_state"
SUSPECTS = "SELECT id, type FROM sync_task WHERE suspect"

KINDS = [
    ("INSERT", "sync_task"),
    ("UPDATE", "sync_task"),
    ("INSERT OR UPDATE", "user_integration_content"),
    ("INSERT OR UPDATE", "sync_run"),
    ("UPDATE", "user_integration"),
    ("INSERT OR UPDATE", "process"),
    ("UPDATE", "engine_state"),
    ("INSERT OR UPDATE", "throughput"),
]


def reported(served: Served) -> str:
    """Return the check of the disk in `/readyz`."""
    with served.client() as client:
        check: str = client.get("/readyz").json()["checks"]["disk"]
        return check


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(0, marks=pytest.mark.timeout(240)),
        pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(1_200)]),
    ],
)
def test_a_full_disk_at_each_kind_of_statement_parks_nothing(
    seconds: int, make_fleet: Callable[..., Fleet], deployment: Deployment, tmp_path: Path
) -> None:
    """The same process leads afterwards, and no task is suspected or runs again."""
    fleet = make_fleet(POLLING_LEASE_SECONDS="30")
    fleet.workers(processes=2)
    fleet.workers(processes=1)
    fleet.ready(40)
    leader = deployment.value(LEADER)
    with polling_serve(deployment, tmp_path) as served:
        assert reported(served) == "ok"
        for kind in KINDS:
            account = connect(deployment, HelloWorld, CONFIG)
            before = len(fleet.says())
            with failing(deployment, *kind):
                sync(deployment, account)
                tick(deployment)
                began = time.monotonic()
                fleet.until(
                    lambda began=before: "No space left" in fleet.says()[began:],
                    f"{kind} fails",
                )
                fleet.until(lambda: reported(served) == "fail", "/readyz reports it")
                fleet.until(
                    lambda began=began: time.monotonic() >= began + seconds, "time", seconds + 5
                )
            oracle.wait_for_quiet(fleet, 60, replace=False)
            oracle.assert_synced(fleet, account, CONFIG)
            assert deployment.value(LEADER) == leader, kind
            assert not deployment.rows(SUSPECTS), kind
        fleet.until(lambda: reported(served) == "ok", "/readyz reports its end", 30)
    oracle.assert_nobody_convicted(deployment)
    assert deployment.value(ATTEMPTS) == 0
    assert not deployment.value("SELECT count(*) FROM sync_task WHERE state = 'parked'")


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(5, marks=pytest.mark.timeout(180)),
        pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(400)]),
    ],
)
def test_a_full_file_system_parks_nothing(
    seconds: int,
    make_fleet: Callable[..., Fleet],
    deployment: Deployment,
    own_servers: Servers,
    tmp_path: Path,
) -> None:
    """The tables of the engine are on a file system of 64 MiB, which somebody fills.

    `/readyz` reports it also while no process writes.
    """
    with small_disk(own_servers, deployment, 64) as disk:
        fleet = make_fleet(POLLING_LEASE_SECONDS="30")
        try:
            fleet.workers()
            fleet.ready(40)
            with polling_serve(deployment, tmp_path) as served:
                _fill(fleet, deployment, disk, served, seconds)
        finally:
            fleet.end()


def _fill(
    fleet: Fleet, deployment: Deployment, disk: SmallDisk, served: Served, seconds: int
) -> None:
    disk.fill()
    fleet.until(lambda: reported(served) == "fail", "/readyz reports it", 40)
    disk.free()
    fleet.until(lambda: reported(served) == "ok", "/readyz reports its end", 40)
    leader = deployment.value(LEADER)
    account = connect(deployment, HelloWorld, SLOWER)
    sync(deployment, account)
    oracle.wait_for_progress(fleet, 50)
    disk.fill()
    began = time.monotonic()
    fleet.until(lambda: "No space left" in fleet.says(), "a statement fails", 40)
    assert reported(served) == "fail"
    fleet.until(lambda: time.monotonic() >= began + seconds, "time", seconds + 5)
    assert deployment.value(LEADER) == leader
    disk.free()
    oracle.wait_for_quiet(fleet, 90, replace=False)
    oracle.assert_synced(fleet, account, SLOWER)
    oracle.assert_nobody_convicted(deployment)
    assert deployment.value(ATTEMPTS) == 0
    assert not deployment.rows(SUSPECTS)
