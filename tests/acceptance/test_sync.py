"""Runs without faults, through the commands that people start, in one process or in many."""

from __future__ import annotations

from collections.abc import Callable

from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, set_due, sync, tick
from support.deployment import Deployment
from support.fleet import Fleet

TREE = {"pages": 6, "items": 6, "fanout_depth": 1}

LAG = """
SELECT r.finished_at - max(t.finished_at) < interval '1 second' FROM sync_run r
JOIN sync_task t ON t.run_id = r.id
GROUP BY r.id
"""


def test_a_tick_syncs_the_accounts_that_are_due(fleet: Fleet, deployment: Deployment) -> None:
    fleet.workers()
    fleet.ready()
    account = connect(deployment, HelloWorld, TREE)
    tick(deployment)
    fleet.until(lambda: deployment.rows("SELECT 1 FROM sync_run"), "the tick makes a run")
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, TREE)


def test_two_schedulers_and_many_ticks_make_one_run(fleet: Fleet, deployment: Deployment) -> None:
    accounts = [connect(deployment, HelloWorld, TREE) for _ in range(10)]
    set_due(deployment, *accounts)
    tick(deployment, times=8)
    fleet.workers(processes=2)
    fleet.workers(processes=1)
    fleet.until(
        lambda: deployment.value("SELECT count(*) FROM sync_run") == 10, "the ticks make runs"
    )
    oracle.wait_for_quiet(fleet)
    for account in accounts:
        oracle.assert_synced(fleet, account, TREE)


def test_the_process_that_closes_the_last_task_ends_the_run(
    fleet: Fleet, deployment: Deployment
) -> None:
    """Completion is a check apart from the saving transaction.

    Inside the saving transaction it would miss siblings that close at the same moment. The leader
    finds forgotten runs some seconds later. Here it must find almost none.
    """
    fleet.workers(threads=8)
    fleet.ready()
    accounts = [
        connect(deployment, HelloWorld, {"pages": 16, "items": 1, "delay_ms": 20})
        for _ in range(40)
    ]
    for account in accounts:
        sync(deployment, account)
    oracle.wait_for_quiet(fleet)
    at_once = [soon for (soon,) in deployment.rows(LAG)]
    assert len(at_once) == 40
    assert sum(at_once) >= 36, (
        f"only {sum(at_once)} of 40 runs were ended by the process that closed the last task"
    )


def test_fetchers_and_savers_in_separate_processes_sync_everything(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    fleet = make_fleet()
    fleet.workers("hello-world", processes=2)
    fleet.workers("save_output", "polling", processes=1)
    fleet.ready()
    small, large = {**TREE, "pages": 10}, {"pages": 2, "items": 3, "item_bytes": 400_000}
    accounts = [(connect(deployment, HelloWorld, config), config) for config in (small, large)]
    tick(deployment)
    fleet.until(
        lambda: deployment.value("SELECT count(*) FROM sync_run") == 2, "the tick makes two runs"
    )
    oracle.wait_for_quiet(fleet)
    for account, config in accounts:
        oracle.assert_synced(fleet, account, config)
