"""SIGTERM: a deploy in the middle of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

import pytest
from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.oracle import COSTLY, LARGE
from support.workload import Workload

SUSPECTS = "SELECT count(*) FROM sync_task WHERE suspect OR crashes > 0 OR attempts > 0"
QUEUED = "SELECT id || '-' || dispatch_no FROM sync_task WHERE state = 'queued'"
PROCESSES = "SELECT count(*) FROM process"


def test_sigterm_in_a_run(fleet: Fleet, deployment: Deployment) -> None:
    """It ends within seconds.

    What was not begun is ready, or still waits in Redis, and nothing is suspected.
    """
    workers = fleet.workers()
    fleet.ready()
    account = connect(deployment, HelloWorld, LARGE)
    sync(deployment, account)
    for done in (300, 1000):
        oracle.wait_for_progress(fleet, done)
        began = time.monotonic()
        assert workers.terminate() == 0
        assert time.monotonic() - began < 10
        assert deployment.value(SUSPECTS) == 0
        # What a dispatcher marked and had not sent yet is not there at all; the next one sends it
        # as it was.
        queued = {message for (message,) in deployment.rows(QUEUED)}
        [sent] = deployment.queues.ids("hello-world")
        assert queued & sent <= set(deployment.queues.waiting("hello-world"))
        assert deployment.value(PROCESSES) == 0
        assert not fleet.led()
        workers.start()
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, LARGE)
    assert deployment.value(SUSPECTS) == 0


@pytest.mark.parametrize(
    "times", [8, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(3600)])]
)
def test_sigterm_at_random_moments(
    times: int, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """While it starts, before it has taken anything, in the midst.

    No lease has to run out for what it had.
    """
    random = Random(times)
    fleet = make_fleet(POLLING_LEASE_SECONDS="60")
    work = Workload(fleet, COSTLY)
    workers = [fleet.workers(processes=1), fleet.workers(processes=2, threads=2)]
    for _ in range(times):
        work.goes_on(random.choice([1, 5, 20, 60]))
        program = random.choice(workers)
        assert program.terminate() in ENDED
        program.start()
        if random.random() < 0.2:
            # So early that it has no handler yet, or is in the middle of its start.
            fleet.until(lambda program=program: program.children(), "it has begun")
            assert program.terminate() in ENDED
            program.start()
    work.comes_to_its_end()
    assert deployment.value(SUSPECTS) == 0


ENDED = {0, -15}
"""By itself, or before it had a handler for the signal."""
