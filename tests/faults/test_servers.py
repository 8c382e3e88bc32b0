"""Servers that stop, die and come back: the processes wait, and go on by themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.oracle import LARGE
from support.servers import Server, Servers


def _restart(server: Server) -> None:
    server.stop()
    server.start()


def _kill(server: Server) -> None:
    server.kill()
    server.start()


FAULTS: dict[str, Callable[[Servers], None]] = {
    "PostgreSQL restarts": lambda servers: _restart(servers.postgres),
    "PostgreSQL is killed": lambda servers: _kill(servers.postgres),
    "Valkey is killed": lambda servers: _kill(servers.valkey),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_in_a_run(fault: str, fleet: Fleet, deployment: Deployment, own_servers: Servers) -> None:
    fleet.workers()
    fleet.ready()
    pids = fleet.worker_pids()
    account = connect(deployment, HelloWorld, LARGE)
    sync(deployment, account)
    oracle.wait_for_progress(fleet, 400)
    FAULTS[fault](own_servers)
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_synced(fleet, account, LARGE)
    oracle.assert_nobody_convicted(deployment)
    assert fleet.worker_pids() == pids


@pytest.mark.parametrize("which", ["postgres", "valkey"])
def test_down_when_workers_start(which: str, fleet: Fleet, deployment: Deployment, own_servers: Servers) -> None:
    config = {"pages": 30}
    account = connect(deployment, HelloWorld, config)
    sync(deployment, account)
    server: Server = getattr(own_servers, which)
    server.stop()
    try:
        workers = fleet.workers(processes=1)
        fleet.until(lambda: fleet.says().count("is ready for action") == 2, "the worker and the dispatcher have begun")
    finally:
        server.start()
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_synced(fleet, account, config)
    assert workers.exit_code is None
