"""Redis loses messages, or delivers them several times."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.metered import Metered
from support.oracle import COSTLY, LARGE
from support.redelivery import Redelivery
from support.slots import TASKS, Slots, most_at_a_time
from support.workload import Workload

from core.transport.messages import encode


def test_repeated_flushes_lose_no_message_and_suspect_no_task(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """Lost messages are sent again before any lease expires, and no task becomes a suspect.

    The leader may return some of the tasks to the ledger, because the user exceeds its share of the
    threads. Such a task has a second dispatch.
    """
    fleet = make_fleet(POLLING_LEASE_SECONDS="60")
    fleet.workers()
    fleet.ready()
    account = connect(deployment, HelloWorld, LARGE)
    sync(deployment, account)
    for done in (200, 700, 1200):
        oracle.wait_for_progress(fleet, done)
        deployment.queues.client.flushall()
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, LARGE)
    harmed = "SELECT count(*) FROM sync_task WHERE suspect OR crashes + attempts > 0"
    assert deployment.value(harmed) == 0
    assert "leases expired" not in fleet.says()
    assert "Redis has lost" in fleet.says()


@pytest.mark.timeout(120)
def test_a_concurrency_limit_holds_though_redis_is_flushed(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """A task that runs is not sent again to another process after its message is lost."""
    fleet = make_fleet(POLLING_LEASE_SECONDS="60", POLLING_PLUGINS="support.slots")
    config = {"pages": 14, "delay_ms": 2500}
    fleet.workers(processes=2)
    fleet.ready()
    account = connect(deployment, Slots, config)
    sync(deployment, account)
    for done in (2, 4, 7, 10):
        oracle.wait_for_progress(fleet, done)
        deployment.queues.client.flushall()
    oracle.wait_for_quiet(fleet, 60)
    oracle.assert_synced(fleet, account, config)
    assert deployment.value("SELECT max(dispatch_no) FROM sync_task") == 1
    assert most_at_a_time(deployment.home) == TASKS.tasks


EVERY_SECONDS = 10.0
"""The number of seconds between two flushes of Redis in the long form."""


@pytest.mark.parametrize(
    "flushes", [3, pytest.param(30, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
def test_budgets_hold_though_redis_is_flushed_repeatedly(
    flushes: int, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """The budgets are lost as well, and their limits still hold.

    Work continues between any two flushes.
    """
    fleet = make_fleet(POLLING_LEASE_SECONDS="60")
    work = Workload(fleet, COSTLY)
    fleet.workers()
    for _ in range(flushes):
        until = time.monotonic() + (EVERY_SECONDS if flushes > 3 else 0)
        work.goes_on(60)
        while time.monotonic() < until:
            work.goes_on(10)
        deployment.queues.client.flushall()
    work.comes_to_its_end()
    assert deployment.value("SELECT max(crashes) + max(attempts) FROM sync_task") == 0


def test_messages_delivered_again_immediately_and_late_do_nothing(
    fleet: Fleet, deployment: Deployment
) -> None:
    """Messages come late: after all tasks are done, to new processes, and in another run."""
    workers = fleet.workers()
    fleet.ready()
    account = connect(deployment, Metered, COSTLY)
    with Redelivery(deployment.queues, "metered") as redelivery:
        sync(deployment, account)
        oracle.wait_for_progress(fleet, 200)
        redelivery.again()
        oracle.wait_for_quiet(fleet, 60)
    assert len(redelivery.seen) > oracle.hello_tasks(COSTLY) / 2
    redelivery.again()
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, COSTLY)
    workers.terminate()
    workers.start()
    sync(deployment, account)
    redelivery.again()
    oracle.wait_for_quiet(fleet)
    redelivery.again()
    oracle.wait_for_quiet(fleet)
    # The second run found everything unchanged, and messages of the first did nothing in it.
    again = 2 * oracle.hello_tasks(COSTLY)
    oracle.assert_tasks(deployment, account, {"done": again})
    assert sorted(oracle.assert_runs(fleet, account, ["succeeded"] * 2)) == [0, 540]
    assert not deployment.rows(oracle.REWRITTEN, account)
    oracle.assert_nobody_convicted(deployment)


def test_unreadable_messages_do_not_stop_the_others(fleet: Fleet, deployment: Deployment) -> None:
    """Other versions and other programs may send anything; messages of the ledger still arrive."""
    fleet.workers()
    fleet.ready()
    account = connect(deployment, HelloWorld, {"pages": 50, "delay_ms": 20})
    sync(deployment, account)
    known = encode("hello-world", "%s", "m", {"t": "%s"}).encode()
    junk = [
        b"\xff\xfe",
        b"{}",
        b"null",
        known % (b"no_such_actor", b""),
        known % (b"run_task", b""),
    ]
    deployment.queues.send(
        "hello-world", {f"junk-{number}": body for number, body in enumerate(junk)}
    )
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, {"pages": 50, "delay_ms": 20})
