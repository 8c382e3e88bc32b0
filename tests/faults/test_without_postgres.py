"""One side of the network fails: only some processes reach PostgreSQL, or none."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

import pytest
from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.proxy import Losses, postgres_proxy, postgres_url
from support.servers import Servers

WORK = {"pages": 40, "items": 5, "delay_ms": 300}
STOPPED = {"pages": 8, "items": 5, "delay_ms": 3000}
SHORT = {"pages": 5, "items": 5}
STOP_SECONDS = 30.0
"""The promise: a worker ends within 30 s of SIGTERM, with or without PostgreSQL."""

EXPIRED = re.compile(r"(\d+) task leases expired")
NOT_INNOCENT = "SELECT count(*) FROM sync_task WHERE attempts > 0 OR crashes > 0"
RUNNING = "SELECT count(*) FROM sync_task WHERE state = 'queued' AND type <> 'start'"


@pytest.mark.parametrize(
    ("when", "hanging"),
    [
        pytest.param("idle", 1.0, id="idle, silent"),
        pytest.param("working", 0.0, id="working, refused"),
        pytest.param("idle", 0.0, id="idle, refused", marks=pytest.mark.long),
        pytest.param("working", 1.0, id="working, silent", marks=pytest.mark.long),
    ],
)
def test_a_process_that_is_cut_off_from_postgres_leaves_the_work_to_others(
    when: str, hanging: float, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """It takes nothing, and returns unstarted messages to Redis under the same dispatch.

    Only tasks that it has started wait for the end of their lease: each thread has one that runs,
    and perhaps one whose result waits to be saved. Twice as many messages wait for a thread.
    """
    lease, threads = 10.0, 8
    fleet = make_fleet(POLLING_LEASE_SECONDS=str(lease))
    cut = threading.Event()
    losses = Losses(lambda direction, message: cut.is_set(), rate=1.0, hanging=hanging)
    with postgres_proxy(deployment.database_url, losses) as proxy:
        fleet.workers(processes=1)
        fleet.ready()
        url = postgres_url(deployment.database_url, proxy)
        lost = fleet.workers(processes=1, threads=threads, DATABASE_URL=url)
        fleet.ready()
        account = connect(deployment, HelloWorld, WORK)
        if when == "idle":
            cut.set()
        sync(deployment, account)
        if when == "working":
            oracle.wait_for_progress(fleet, 30)
            cut.set()
        began = time.monotonic()
        oracle.wait_for_quiet(fleet, lease + 25, replace=False)
        assert lost.exit_code is None
        expired = sum(map(int, EXPIRED.findall(fleet.says())))
        assert expired <= (2 * threads if when == "working" else 0)
        if when == "idle":
            assert time.monotonic() - began < lease
        cut.clear()
        later = connect(deployment, HelloWorld, SHORT)
        for program in fleet.programs:
            if program is not lost:
                program.kill()
        fleet.programs[:] = [lost]
        fleet.let_the_lead_run_out()
        sync(deployment, later)
        oracle.wait_for_quiet(fleet, 40, replace=False)
    oracle.assert_synced(fleet, account, WORK)
    oracle.assert_synced(fleet, later, SHORT)
    assert deployment.value(NOT_INNOCENT) == 0


def test_sigterm_while_postgres_is_away_ends_within_its_promise(
    make_fleet: Callable[..., Fleet], deployment: Deployment, own_servers: Servers
) -> None:
    """Some tasks run, results wait for the saver, and messages wait for a thread."""
    fleet = make_fleet(POLLING_LEASE_SECONDS="5")
    workers = fleet.workers(processes=1, threads=2)
    fleet.ready()
    account = connect(deployment, HelloWorld, STOPPED)
    sync(deployment, account)
    fleet.until(lambda: deployment.value(RUNNING) >= 3, "tasks run, and others wait")
    own_servers.postgres.kill()
    fleet.until(lambda: "could not save results" in fleet.says(), "results wait")
    began = time.monotonic()
    workers.terminate(120)
    took = time.monotonic() - began
    own_servers.postgres.start()
    assert took < STOP_SECONDS
    workers.start()
    oracle.wait_for_quiet(fleet, 60)
    oracle.assert_synced(fleet, account, STOPPED)
    oracle.assert_nobody_convicted(deployment)
