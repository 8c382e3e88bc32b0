"""A rolling change of `POLLING_LEASE_SECONDS`: processes with long and with short leases."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet, send

CONFIG = {"pages": 2, "delay_ms": 12_000}

LEADER = "SELECT p.pid FROM engine_state s JOIN process p ON p.id = s.leader"
QUEUED = "SELECT count(*) FROM sync_task WHERE state = 'queued' AND type <> 'start'"
SUSPECTS = "SELECT id, type, crashes FROM sync_task WHERE suspect OR crashes > 0"


@pytest.mark.parametrize(
    ("worker", "leader"), [(60, 5), pytest.param(5, 60, marks=pytest.mark.long)]
)
def test_tasks_of_12_s_run_once_while_the_length_of_leases_changes(
    worker: int, leader: int, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """The worker that runs them and the leader that dispatches them have different settings."""
    fleet = make_fleet()
    workers = fleet.workers(processes=1, POLLING_LEASE_SECONDS=str(worker))
    fleet.ready(40)
    (pid,) = workers.children() - set(fleet.worker_pids())
    send(signal.SIGKILL, pid)
    others = fleet.workers("polling", processes=1, POLLING_LEASE_SECONDS=str(leader))
    fleet.until(lambda: others.children() & set(fleet.worker_pids()), "the others register", 40)
    fleet.let_the_lead_run_out()
    fleet.until(
        lambda: {deployment.value(LEADER)} & others.children(), "the other dispatcher leads", 40
    )
    account = connect(deployment, HelloWorld, CONFIG)
    sync(deployment, account)
    fleet.until(lambda: deployment.value(QUEUED), "the tasks run")
    oracle.wait_for_quiet(fleet, 60, replace=False)
    oracle.assert_synced(fleet, account, CONFIG)
    assert not deployment.rows(SUSPECTS)
    assert deployment.value("SELECT max(dispatch_no) FROM sync_task") == 1


def test_a_killed_worker_with_short_leases_is_noticed_soon(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """A leader with long leases judges the tasks of the worker by the worker's own leases."""
    fleet = make_fleet()
    victim = fleet.workers("hello-world", processes=1, POLLING_LEASE_SECONDS="2")
    others = fleet.workers("polling", "save_output", processes=1, POLLING_LEASE_SECONDS="600")
    fleet.ready(40)
    (pid,) = victim.children() - set(fleet.worker_pids())
    send(signal.SIGKILL, pid)
    fleet.let_the_lead_run_out()
    fleet.until(lambda: {deployment.value(LEADER)} & others.children(), "it leads", 40)
    account = connect(deployment, HelloWorld, {"pages": 2, "delay_ms": 3_000})
    sync(deployment, account)
    fleet.until(lambda: deployment.value(QUEUED), "the tasks run")
    renewed = (
        "SELECT max(lease_until) < now() + interval '5 s' FROM sync_task WHERE type <> 'start'"
    )
    fleet.until(lambda: deployment.value(renewed), "the worker renews its leases")
    victim.kill()
