"""A provider that answers for seconds, and is away for seconds, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import METERED, Fleet
from support.metered import calls
from support.probing import AWAY, PROBES, STARTS, Probing

FLAPPING = METERED | {"POLLING_PLUGINS": "support.probing"}
PAGES, PERIODS, SECONDS = 600, 6, 3.0
WINDOW = 8 + 20
"""The tasks that are dispatched at a time: the threads, and those of a quarter of a second."""
DONE = "SELECT count(*) FROM sync_task WHERE type = 'list_page' AND state = 'done'"
PARKED = "SELECT type, reason FROM sync_task WHERE state = 'parked'"
LEFT = """
SELECT count(*) FROM sync_task
WHERE state IN ('ready', 'queued', 'deferred') AND retried_as IS NULL
"""
DUE = """
UPDATE sync_task SET available_at = now() WHERE id IN (
    SELECT id FROM sync_task WHERE state = 'deferred' AND available_at > now()
    ORDER BY id FOR UPDATE SKIP LOCKED)
"""


@pytest.mark.long
@pytest.mark.timeout(200)
def test_a_provider_that_flaps_loses_nothing_and_gets_few_calls_in_vain(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    fleet = make_fleet(**FLAPPING)
    fleet.workers(processes=2, threads=4)
    fleet.ready()
    config = {"name": "unavailable", "pages": PAGES, "items": 1, "delay_ms": 100}
    account = connect(deployment, Probing, config)
    sync(deployment, account)
    fleet.until(lambda: deployment.value(DONE), "the first pages are done")
    progress = []
    for _ in range(PERIODS):
        for is_away in (True, False):
            switch = deployment.home / AWAY
            switch.touch() if is_away else switch.unlink()
            ends = time.monotonic() + SECONDS
            fleet.until(lambda ends=ends: time.monotonic() >= ends, "the period is over")
        progress.append(deployment.value(DONE))
    starts, probes = (
        len(calls(deployment.home, log).get("unavailable", ())) for log in (STARTS, PROBES)
    )
    print(f"{progress} done, {starts} calls, {probes} probes")
    assert not deployment.rows(PARKED)

    def all_done() -> bool:
        deployment.rows(DUE)
        return not deployment.value(LEFT)

    fleet.until(all_done, "every task is done", 90)
    oracle.wait_for_quiet(fleet, 30)
    oracle.assert_synced(fleet, account, config)
    assert not deployment.rows(PARKED)
    assert progress[-1] > progress[0], "no progress"
    vain = len(calls(deployment.home, STARTS)["unavailable"]) - PAGES
    # Each outage costs the failures that open the breaker, and the tasks that were dispatched. A
    # call that began before the outage, and succeeds after the first failures, may double that.
    assert vain <= PERIODS * (5 + 2 * WINDOW), f"{vain} calls in vain"
    assert len(calls(deployment.home, PROBES)["unavailable"]) <= 4 * PERIODS
