"""An account with many stopped tasks: its run takes them over in portions."""

from __future__ import annotations

import signal
from collections.abc import Callable

from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet, send

from core.ledger.controls import cancel_run

CONFIG = oracle.LARGE

READY = "SELECT count(*) FROM sync_task WHERE state = 'ready'"
COPIES = "SELECT count(*) FROM sync_task WHERE retry_of IS NOT NULL"
CARRYING = "SELECT count(*) FROM sync_run WHERE state = 'running' AND carry_until IS NOT NULL"
TWICE = "SELECT count(*) - count(DISTINCT retry_of) FROM sync_task WHERE retry_of IS NOT NULL"
LAST = """
SELECT id FROM sync_task WHERE state = 'cancelled' ORDER BY available_at DESC, id DESC LIMIT 1
FOR UPDATE
"""
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"


def test_a_leader_killed_in_a_portion_loses_and_repeats_nothing(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """A lock on the last task holds the leader up in the last portion."""
    fleet = make_fleet(POLLING_LEASE_SECONDS="60")
    fleet.workers(processes=1)
    fleet.ready(40)
    account = connect(deployment, HelloWorld, CONFIG)
    run = sync(deployment, account)
    fleet.until(lambda: deployment.value(READY) > 400, "tasks wait")
    with deployment.connection() as other:
        cancel_run(other, run)
        other.execute("BEGIN")
        other.execute(LAST)
        sync(deployment, account)
        fleet.until(lambda: deployment.value(BLOCKED, other.info.backend_pid), "the leader waits")
        send(signal.SIGKILL, *fleet.dispatcher_pids())
        moved = deployment.value(COPIES)
        assert moved >= 100
        assert deployment.value(CARRYING) == 1
        other.execute("ROLLBACK")
    fleet.let_the_lead_run_out(60)
    oracle.wait_for_quiet(fleet, 60, replace=False)
    assert deployment.value(COPIES) > moved
    assert not deployment.value(TWICE)
    assert dict(deployment.rows(oracle.CONTENT, account)) == oracle.expected(CONFIG)
    oracle.assert_nobody_convicted(deployment)
