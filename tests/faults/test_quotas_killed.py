"""Quotas of users while processes are killed: each run and each byte counts once."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import suppress
from random import Random
from uuid import UUID

import pytest
from integration_polling_hello_world import HelloWorld
from support.accounts import connect, set_due, sync, tick
from support.deployment import Deployment
from support.fleet import Fleet, send

from core.ledger import quotas
from core.states import Quota

USERS = ("ann", "bob", "cleo")
RUNS = 12

# Runs whose rows are kept, and polls that found nothing, whose rows were deleted.
BEGUN = """
SELECT a.user_id, sum(
    (SELECT count(*) FROM sync_run r WHERE r.user_integration_id = a.id AND r.lane = 'live')
    + a.empty_runs + coalesce((SELECT sum(d.empty_runs) FROM account_day d
        WHERE d.user_integration_id = a.id), 0))::int
FROM user_integration a GROUP BY 1 ORDER BY 1
"""
COUNTED = "SELECT user_id, sum(runs)::int FROM user_day WHERE runs > 0 GROUP BY 1 ORDER BY 1"
STORED = """
SELECT a.user_id, sum(c.size)::bigint FROM user_integration_content c
JOIN user_integration a ON a.id = c.user_integration_id GROUP BY 1 ORDER BY 1
"""
KEPT = "SELECT user_id, bytes FROM user_kept ORDER BY 1"
OPEN = "SELECT count(*) FROM sync_run WHERE state = 'running'"


@pytest.mark.parametrize(
    "kills", [3, pytest.param(40, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
def test_kills_let_no_user_exceed_a_quota(
    kills: int, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    random, most = Random(kills), RUNS * kills // 6
    fleet = make_fleet(POLLING_QUOTAS=json.dumps({"runs": most}))
    fleet.workers(processes=2, threads=2)
    fleet.workers(processes=1, threads=2)
    fleet.ready()
    fleet.until(
        lambda: deployment.rows("SELECT most FROM user_quota") == [(most,)],
        "the leader has written the default",
    )
    accounts = [
        connect(deployment, HelloWorld, {"name": str(number), "pages": 2, "items": 3}, user=user)
        for user in USERS
        for number in range(2)
    ]
    for turn in range(1, kills + 1):
        _poll_until(fleet, accounts, len(USERS) * most * turn // (kills + 1))
        victims = [*fleet.worker_pids(), *fleet.dispatcher_pids()]
        if victims and turn % 3:
            with suppress(ProcessLookupError):
                send(signal.SIGKILL, random.choice(victims))
        else:
            random.choice(fleet.programs).kill()
        fleet.let_the_lead_run_out(18)
    _poll_until(fleet, accounts, len(USERS) * most)
    for _ in range(3):
        set_due(deployment, *accounts)
        tick(deployment, 2)
        fleet.until(lambda: _none_due(deployment), "due accounts were handled", 40, replace=True)
    expected = [(user, most) for user in USERS]
    assert deployment.rows(COUNTED) == deployment.rows(BEGUN) == expected
    fleet.until(lambda: deployment.value(OPEN) == 0, "all runs have ended", 60, replace=True)
    fleet.until(
        lambda: deployment.rows(KEPT) == deployment.rows(STORED) != [],
        "the totals are the sizes of the content",
        replace=True,
    )


def _poll_until(fleet: Fleet, accounts: list[UUID], begun: int) -> None:
    """Let accounts be due until a number of runs has begun."""

    def step() -> bool:
        set_due(fleet.deployment, *accounts)
        tick(fleet.deployment)
        return sum(number for _, number in fleet.deployment.rows(COUNTED)) >= begun

    fleet.until(step, f"{begun} runs have begun", 60, replace=True)


def _none_due(deployment: Deployment) -> bool:
    """Poll while accounts are due: an account that joined an open run is due again at its end."""
    due = "SELECT count(*) FROM user_integration WHERE next_sync_at <= clock_timestamp()"
    if deployment.value(due) == 0:
        return True
    tick(deployment)
    return False


def test_a_run_waits_for_a_larger_quota_of_bytes(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """It stays open, holds no thread, and continues by itself."""
    fleet = make_fleet(POLLING_QUOTAS=json.dumps({"bytes": 2_000}))
    fleet.workers(processes=2, threads=4)
    fleet.ready()
    config = {"name": "large", "pages": 300, "items": 10, "delay_ms": 200}
    sync(deployment, connect(deployment, HelloWorld, config, user="ann"))
    sync(deployment, connect(deployment, HelloWorld, {"name": "small", "pages": 1}, user="bob"))
    full = "SELECT count(*) FROM user_kept WHERE is_full AND user_id = 'ann'"
    fleet.until(lambda: deployment.value(full) == 1, "the content has reached the quota", 60)
    queued = "SELECT count(*) FROM sync_task WHERE state = 'queued'"
    fleet.until(lambda: deployment.value(queued) == 0, "no task is dispatched", 60)
    assert deployment.value(OPEN) == 1
    assert deployment.value("SELECT count(*) FROM sync_task WHERE state = 'ready'") > 0
    with deployment.connection() as conn:
        quotas.set_quotas(conn, "ann", {Quota.BYTES: None})
    fleet.until(lambda: deployment.value(OPEN) == 0, "the run ends", 120)
    fleet.until(
        lambda: deployment.rows(KEPT) == deployment.rows(STORED),
        "the leader has added the last changes",
    )
