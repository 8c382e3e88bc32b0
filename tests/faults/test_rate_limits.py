"""Refusals of providers, and budgets: waiting costs no attempt, and nobody else anything."""

from __future__ import annotations

from integration_polling_hostile import Credentials, Hostile
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.hostile import parked
from support.metered import CALLS, Metered, calls

from core.ledger.controls import retry

STATUS = "SELECT sync_status, status_reason FROM user_integration WHERE id = %s"
BOTHERED = (
    "SELECT max(attempts), max(crashes), max(snoozes) FROM sync_task WHERE user_integration_id = %s"
)
SNOOZED = "SELECT max(snoozes) > 0 FROM sync_task WHERE user_integration_id = %s"
FRUGAL = "SELECT state FROM sync_task WHERE type = 'frugal'"


def test_storms_of_refusals(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """Whatever a provider says of when to come again: no attempt is burned, and other accounts
    do not notice.
    """
    hostile_fleet.workers()
    answers = [0, -5, 3600, "soon", [], None]
    storms = [
        connect(deployment, Hostile, {"deeds": ["rate_limited"] * 5, "retry_after": one})
        for one in answers
    ]
    calm = connect(deployment, Hostile, {"neighbours": 30})
    for account in (*storms, calm):
        sync(deployment, account)
    ended = "SELECT count(*) FROM sync_run WHERE user_integration_id = %s AND state = 'succeeded'"
    hostile_fleet.until(lambda: deployment.value(ended, calm), "the calm account is synced")
    hostile_fleet.until(
        lambda: all(deployment.value(SNOOZED, account) for account in storms), "all were refused"
    )
    for account in storms:
        attempts, crashes, _ = deployment.rows(BOTHERED, account)[0]
        assert attempts == crashes == 0
    assert not parked(deployment)
    oracle.assert_tasks(deployment, calm, {"done": 31})


def test_a_storm_that_passes(fleet: Fleet, deployment: Deployment) -> None:
    """Half of all calls are refused the first time, in each process anew; in the end nothing is
    missing.
    """
    fleet.workers(threads=8)
    config = {"pages": 24, "items": 2, "fail_rate": {"rate_limited": 0.5}}
    account = connect(deployment, Metered, config)
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, 90)
    oracle.assert_synced(fleet, account, config)
    attempts, crashes, snoozes = deployment.rows(BOTHERED, account)[0]
    assert attempts == crashes == 0 < snoozes


def test_a_budget_is_one_for_all_processes(fleet: Fleet, deployment: Deployment) -> None:
    """Three accounts with a budget each; what they could do at once is far more than that."""
    fleet.workers(processes=1)
    fleet.workers(processes=2)
    accounts = [connect(deployment, Metered, oracle.COSTLY) for _ in range(3)]
    for account in accounts:
        sync(deployment, account)
    oracle.wait_for_quiet(fleet, 60)
    for account in accounts:
        oracle.assert_synced(fleet, account, oracle.COSTLY)
        moments = calls(deployment.home)[str(account)]
        assert len(moments) > 3 * CALLS.units, "the budget was never asked for more than it has"


def test_a_task_with_a_cost_that_cannot_begin(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """Its budget is asked before it runs, and for that its account is opened: what fails there ends
    as in the task.

    Whether the keys of this process are wrong or the account's credentials cannot be known: the
    task waits, and says so.
    """
    hostile_fleet.workers()
    account = connect(
        deployment,
        Hostile,
        {"deeds": ["ask_for_budget"], "neighbours": 0},
        Credentials(token="s3cr3t"),
    )
    sync(deployment, account)
    hostile_fleet.until(
        lambda: deployment.rows(FRUGAL) == [("done",)], "it is done while the account is well"
    )
    oracle.wait_for_quiet(hostile_fleet)
    deployment.rows(
        "UPDATE user_integration SET credentials = 'no key opens this', version = version + 1"
    )
    task = deployment.value(
        "UPDATE sync_task SET state = 'parked' WHERE type = 'frugal' RETURNING id"
    )
    with deployment.connection() as connection:
        retry(connection, [task])  # a run of this task alone
    deployment.queues.wake()
    waits = (
        "SELECT state, attempts, reason FROM sync_task WHERE retry_of IS NOT NULL AND snoozes = 1"
    )
    hostile_fleet.until(lambda: deployment.rows(waits), "the task is put back")
    [(state, attempts, reason)] = deployment.rows(waits)
    assert (state, attempts) == ("ready", 0)
    assert "no configured key decrypts" in reason
    assert deployment.rows(STATUS, account) == [("active", None)]
