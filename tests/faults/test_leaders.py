"""Two leaders and two schedulers, though there should be one of each."""

from __future__ import annotations

import pytest
from support import oracle
from support.accounts import connect, set_due, sync, tick
from support.deployment import Deployment
from support.fleet import Fleet
from support.leaders import leaders_at_once, let_everybody_lead
from support.metered import Metered
from support.oracle import COSTLY

TREE = {"pages": 4, "items": 5, "fanout_depth": 1}

RUNS = "SELECT count(*) FROM sync_run"


def test_two_leaders_at_the_same_time_repeat_no_task(fleet: Fleet, deployment: Deployment) -> None:
    """The database tells both dispatchers that they lead.

    They claim, send again, sweep and end runs at the same time.
    """
    let_everybody_lead(deployment)
    accounts = [connect(deployment, Metered, COSTLY) for _ in range(3)]
    for _ in range(2):
        fleet.workers(processes=1)
    fleet.ready()
    for account in accounts:
        sync(deployment, account)
    oracle.wait_for_quiet(fleet, replace=False)
    assert leaders_at_once(deployment) == 2
    for account in accounts:
        oracle.assert_synced(fleet, account, COSTLY)
    oracle.assert_nobody_convicted(deployment)


def test_one_of_many_candidates_leads_and_the_next_takes_over(
    fleet: Fleet, deployment: Deployment
) -> None:
    """One candidate leads, and the next takes over as soon as that one has ended.

    Many ticks at the same time make one run of each account.
    """
    accounts = [connect(deployment, Metered, COSTLY) for _ in range(4)]
    programs = [fleet.workers(processes=1, threads=2) for _ in range(3)]
    fleet.ready()
    set_due(deployment, *accounts)
    tick(deployment, times=12)
    fleet.until(lambda: deployment.value(RUNS) == 4, "the ticks make runs")
    for program in programs[:2]:
        oracle.wait_for_progress(fleet, deployment.value(oracle.DONE) + 100)
        assert program.terminate() == 0
    fleet.until(fleet.led, "the last candidate leads")
    oracle.wait_for_quiet(fleet, 60, replace=False)
    for account in accounts:
        oracle.assert_synced(fleet, account, COSTLY)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_two_schedulers_make_one_run_of_each_account(fleet: Fleet, deployment: Deployment) -> None:
    """Two real schedulers send at the same full minute."""
    accounts = [connect(deployment, Metered, TREE) for _ in range(6)]
    for _ in range(2):
        fleet.scheduler(POLLING_CRON_SCHEDULE="* * * * *")
    fleet.until(
        lambda: deployment.queues.length("polling") >= 2, "both schedulers have sent a tick", 90
    )
    fleet.workers(processes=2)
    fleet.until(lambda: deployment.value(RUNS) == 6, "the ticks make runs")
    oracle.wait_for_quiet(fleet, replace=False)
    for account in accounts:
        oracle.assert_synced(fleet, account, TREE)
