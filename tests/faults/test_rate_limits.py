"""Refusals by providers, and budgets.

Waiting costs no attempt, and other accounts nothing.
"""

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


def test_refusals_cost_no_attempt_and_affect_no_other_account(
    hostile_fleet: Fleet, deployment: Deployment
) -> None:
    """Refusals cost no attempt and do not affect other accounts, for any `retry_after`."""
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
        lambda: all(deployment.value(SNOOZED, account) for account in storms),
        "all other accounts were refused",
    )
    for account in storms:
        attempts, crashes, _ = deployment.rows(BOTHERED, account)[0]
        assert attempts == crashes == 0
    assert not parked(deployment)
    oracle.assert_tasks(deployment, calm, {"done": 31})


def test_a_run_completes_after_half_of_its_calls_were_refused(
    fleet: Fleet, deployment: Deployment
) -> None:
    """Half of all calls are refused the first time, in each process, and nothing is lost."""
    fleet.workers(threads=8)
    config = {"pages": 24, "items": 2, "fail_rate": {"rate_limited": 0.5}}
    account = connect(deployment, Metered, config)
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, 90)
    oracle.assert_synced(fleet, account, config)
    attempts, crashes, snoozes = deployment.rows(BOTHERED, account)[0]
    assert attempts == crashes == 0 < snoozes


def test_all_processes_share_one_budget_of_an_account(fleet: Fleet, deployment: Deployment) -> None:
    """Three accounts have a budget each. Without it they could do far more."""
    fleet.workers(processes=1)
    fleet.workers(processes=2)
    accounts = [connect(deployment, Metered, oracle.COSTLY) for _ in range(3)]
    for account in accounts:
        sync(deployment, account)
    oracle.wait_for_quiet(fleet, 60)
    for account in accounts:
        oracle.assert_synced(fleet, account, oracle.COSTLY)
        moments = calls(deployment.home)[str(account)]
        assert len(moments) > 3 * CALLS.units, "the calls never came near the budget"


def test_a_task_waits_while_its_account_cannot_be_opened(
    hostile_fleet: Fleet, deployment: Deployment
) -> None:
    """The budget is requested before the task runs, and for that the account is opened.

    An error while the account is opened is treated like an error of the task. It is unknown whether
    the keys of this process are wrong or the account's credentials. The task waits and states this
    reason.
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
        lambda: deployment.rows(FRUGAL) == [("done",)],
        "the task is done while the account can be opened",
    )
    oracle.wait_for_quiet(hostile_fleet)
    deployment.rows(
        "UPDATE user_integration SET credentials = 'no key opens this', version = version + 1"
    )
    task = deployment.value(
        "UPDATE sync_task SET state = 'parked' WHERE type = 'frugal' RETURNING id"
    )
    with deployment.connection() as connection:
        retry(connection, [task])  # a run with this task only
    deployment.queues.wake()
    waits = (
        "SELECT state, attempts, reason FROM sync_task WHERE retry_of IS NOT NULL AND snoozes = 1"
    )
    hostile_fleet.until(lambda: deployment.rows(waits), "the task is snoozed")
    [(state, attempts, reason)] = deployment.rows(waits)
    assert (state, attempts) == ("ready", 0)
    assert "no configured key decrypts" in reason
    assert deployment.rows(STATUS, account) == [("active", None)]
