"""Follow-ups: too many, cyclic, duplicate, and none."""

from __future__ import annotations

import pytest
from integration_polling_hostile import Endless, Hostile
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.hostile import assert_neighbours_done

NOOPS = "SELECT count(*) FROM sync_task WHERE type = 'noop'"


@pytest.mark.parametrize(
    "wanted", [3_000, pytest.param(100_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_a_hundred_thousand_follow_ups_never_fill_redis(
    wanted: int, hostile_fleet: Fleet, deployment: Deployment
) -> None:
    """The tasks become rows immediately, and Redis holds a window of them.

    The long form waits until all of them are done.
    """
    hostile_fleet.workers()
    account = connect(deployment, Hostile, {"flood": 100_000, "neighbours": 2})
    sync(deployment, account)
    most = 0

    def flooded() -> bool:
        nonlocal most
        most = max(most, deployment.queues.length("hostile"))
        done: int = deployment.value(oracle.DONE)
        return done >= wanted

    hostile_fleet.until(flooded, f"{wanted:,} tasks are done", wanted / 75)
    assert deployment.value(NOOPS) == 100_000
    # The window is a quarter of a second of throughput, so its size depends on the machine.
    assert 0 < most < 5_000
    assert_neighbours_done(deployment)
    if wanted == 100_000:
        oracle.wait_for_quiet(hostile_fleet)
        oracle.assert_tasks(deployment, account, {"done": 100_004})
        oracle.assert_runs(hostile_fleet, account, ["succeeded"])


def test_the_key_ends_circles_and_the_bound_ends_spirals(
    hostile_fleet: Fleet, deployment: Deployment
) -> None:
    workers = hostile_fleet.workers()
    account = connect(deployment, Endless)
    sync(deployment, account)
    oracle.wait_for_progress(hostile_fleet, 200)
    # The leader checks the bound once a minute and when it begins to lead, for runs older than 20
    # s.
    deployment.rows("UPDATE sync_run SET started_at = started_at - interval '1 minute'")
    workers.terminate()
    workers.start()
    oracle.wait_for_quiet(hostile_fleet)
    assert deployment.value("SELECT count(*) FROM sync_task WHERE type = 'circle'") == 1
    assert deployment.rows("SELECT type, reason FROM sync_task WHERE state = 'parked'") == [
        ("spiral", "the run has more than 100 tasks; a task may be making ever new keys")
    ]
    oracle.assert_runs(hostile_fleet, account, ["partial"])


def test_one_key_makes_one_task_however_many_results_name_it(
    hostile_fleet: Fleet, deployment: Deployment
) -> None:
    """One result names the key 100 times, and many tasks that end at the same time name it too."""
    hostile_fleet.workers()
    account = connect(deployment, Hostile, {"deeds": ["name_one_key"] * 30})
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet)
    assert deployment.value(NOOPS) == 1
    oracle.assert_tasks(deployment, account, {"done": 1 + 10 + 30 + 1})
    oracle.assert_runs(hostile_fleet, account, ["succeeded"])


def test_a_run_without_follow_ups_succeeds(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """The first task of the run is its last."""
    hostile_fleet.workers(processes=1)
    account = connect(deployment, Hostile, {"neighbours": 0})
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet)
    oracle.assert_tasks(deployment, account, {"done": 1})
    oracle.assert_runs(hostile_fleet, account, ["succeeded"])
