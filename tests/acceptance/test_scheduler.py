"""Tests that `periodiq core.actors` sends the ticks.

It does so at full minutes. Therefore it has run since the first test.
"""

from __future__ import annotations

from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect
from support.fleet import Fleet


def test_periodiq_sends_a_tick_at_a_full_minute(scheduled: Fleet) -> None:
    deployment = scheduled.deployment
    account = connect(deployment, HelloWorld)
    scheduled.until(lambda: deployment.queues.length("polling"), "a full minute has passed", 70)
    scheduled.workers(processes=1)
    scheduled.until(lambda: deployment.rows("SELECT 1 FROM sync_run"), "the tick makes a run")
    oracle.wait_for_quiet(scheduled, replace=False)
    oracle.assert_synced(scheduled, account, {})
