"""A probe is a plugin's code. No deed of a probe costs an innocent task anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import METERED, Fleet
from support.metered import calls
from support.probing import ANSWERS, AWAY, PROBES, SILENT, STARTS, Probing

PROBING = METERED | {"POLLING_PLUGINS": "support.probing", "POLLING_TASK_TIMEOUT_SECONDS": "2"}
PAGES = 10

BLAMED = """
SELECT a.config->>'name', max(t.attempts), max(t.crashes)
FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id GROUP BY 1
"""
PARKED = "SELECT user_integration_id, type, reason FROM sync_task WHERE state = 'parked'"
SKIP_PAUSES = """
UPDATE breaker SET probe_at = now() WHERE user_integration_id IN (
    SELECT user_integration_id FROM breaker WHERE probe_at > now() LIMIT 1 FOR UPDATE SKIP LOCKED)
"""
DUE = """
UPDATE sync_task SET available_at = now() WHERE id IN (
    SELECT id FROM sync_task WHERE state IN ('deferred', 'ready') AND available_at > now()
    ORDER BY id FOR UPDATE SKIP LOCKED)
"""
LEFT = """
SELECT count(*) FROM sync_task
WHERE state IN ('ready', 'queued', 'deferred') AND retried_as IS NULL
"""


def during_an_outage(fleet: Fleet, deployment: Deployment, names: list[str], probes: int) -> None:
    """Take the provider away, and let each account probe it this number of times."""
    (deployment.home / AWAY).touch()
    for name in names:
        delay = 1_700 if name == "late" else 0
        config = {"name": name, "pages": PAGES, "items": 1, "delay_ms": delay}
        sync(deployment, connect(deployment, Probing, config))

    def probed() -> bool:
        deployment.rows(SKIP_PAUSES)
        deployment.rows(DUE)
        deployment.queues.wake()
        made = calls(deployment.home, PROBES)
        return all(len(made.get(name, ())) >= probes for name in names)

    fleet.until(probed, f"each account made {probes} probes", 120, replace=True)


def until_all_is_done(fleet: Fleet, deployment: Deployment) -> None:
    def done() -> bool:
        deployment.rows(SKIP_PAUSES)
        deployment.rows(DUE)
        deployment.queues.wake()
        return not deployment.value(LEFT)

    (deployment.home / AWAY).unlink()
    fleet.until(done, "every task is done", 90, replace=True)
    oracle.wait_for_quiet(fleet, 30)


@pytest.mark.timeout(300)
def test_a_probe_that_misbehaves_parks_no_task_and_counts_no_crash(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    fleet = make_fleet(**PROBING)
    fleet.workers(processes=2, threads=8)
    fleet.ready()
    during_an_outage(fleet, deployment, [*SILENT, *ANSWERS], 4)
    blamed = {name: counts for name, *counts in deployment.rows(BLAMED)}
    print(blamed, {name: len(made) for name, made in calls(deployment.home, STARTS).items()})
    assert not deployment.rows(PARKED)
    assert not any(crashes for _, crashes in blamed.values())
    assert {name: blamed[name][0] for name in SILENT} == dict.fromkeys(SILENT, 0)
    until_all_is_done(fleet, deployment)
    assert not deployment.rows(PARKED)
    assert not any(crashes for _, _, crashes in deployment.rows(BLAMED))


def innocent_of_a_probe_that(deed: str, fleet: Fleet, deployment: Deployment) -> None:
    """Let a probe kill its process or its thread five times, beside tasks of another account."""
    fleet.workers(processes=1, threads=4)
    fleet.ready()
    neighbour = {"name": "neighbour", "pages": 400, "items": 1, "delay_ms": 200}
    sync(deployment, connect(deployment, HelloWorld, neighbour))
    during_an_outage(fleet, deployment, [deed], 5)
    assert not deployment.rows(PARKED)
    blamed = {name: counts for name, *counts in deployment.rows(BLAMED)}
    assert blamed[deed] == [0, 0]
    # The first probe may die beside a suspected neighbour, before its own task is a suspect.
    assert blamed["neighbour"][1] <= 1


@pytest.mark.timeout(200)
def test_a_probe_that_kills_its_process_parks_no_task(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    fleet = make_fleet(**PROBING, POLLING_LEASE_SECONDS="1")
    innocent_of_a_probe_that("exit", fleet, deployment)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_probe_that_blocks_for_ever_parks_no_task(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    fleet = make_fleet(**PROBING, POLLING_LEASE_SECONDS="1")
    innocent_of_a_probe_that("block", fleet, deployment)
