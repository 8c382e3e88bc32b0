"""Processes that are killed or stopped: what they held is done by others, once."""

from __future__ import annotations

import signal

from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet, send
from support.oracle import LARGE


def test_a_killed_worker(fleet: Fleet, deployment: Deployment) -> None:
    fleet.workers()
    fleet.ready()
    account = connect(deployment, HelloWorld, LARGE)
    sync(deployment, account)
    oracle.wait_for_progress(fleet, 300)
    send(signal.SIGKILL, fleet.worker_pids()[0])
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, LARGE)
    oracle.assert_nobody_convicted(deployment)


def test_everything_killed_at_once(fleet: Fleet, deployment: Deployment) -> None:
    workers = fleet.workers()
    fleet.ready()
    account = connect(deployment, HelloWorld, LARGE)
    sync(deployment, account)
    oracle.wait_for_progress(fleet, 500)
    workers.kill()
    # The lead of the dead runs out in 10 s; they have passed.
    deployment.rows("UPDATE ledger SET leader_until = clock_timestamp()")
    workers.start()
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, LARGE)
    oracle.assert_nobody_convicted(deployment)


def test_a_killed_dispatcher_is_replaced_by_a_worker(fleet: Fleet, deployment: Deployment) -> None:
    """Dramatiq never replaces it. The run begins when nobody leads, and ends because a worker process takes over."""
    fleet.workers()
    fleet.ready()
    [dispatcher] = fleet.dispatcher_pids()
    send(signal.SIGKILL, dispatcher)
    # The lead has to be vacant for 20 s; most of them have passed already.
    deployment.rows("UPDATE ledger SET leader_until = clock_timestamp() - interval '18 seconds'")
    config = {"pages": 20}
    account = connect(deployment, HelloWorld, config)
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_synced(fleet, account, config)
    assert "nobody dispatches; this process does it from now on" in fleet.says()


def test_a_stopped_worker_comes_back_too_late(fleet: Fleet, deployment: Deployment) -> None:
    """What it held is done by others meanwhile, and its own results are refused."""
    workers = fleet.workers()
    fleet.ready()
    config = {"pages": 150, "items": 3, "delay_ms": 50}
    account = connect(deployment, HelloWorld, config)
    sync(deployment, account)
    oracle.wait_for_progress(fleet, 30)
    zombie = fleet.worker_pids()[0]
    send(signal.SIGSTOP, zombie)
    try:
        fleet.until(lambda: not deployment.value(oracle.OPEN), "the others finish its work", 40)
    finally:
        send(signal.SIGCONT, zombie)
    # A worker that ends hands in all that it has.
    assert workers.terminate() == 0
    assert not oracle.in_redis(deployment)
    oracle.assert_synced(fleet, account, config)
    oracle.assert_nobody_convicted(deployment)
