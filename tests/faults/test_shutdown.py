"""SIGTERM: a deploy during a run."""

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


def test_sigterm_during_a_run_suspects_no_task(fleet: Fleet, deployment: Deployment) -> None:
    """The workers end within seconds.

    A task that was not begun is ready, or still waits in Redis. No task becomes a suspect.
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
        # A message that a dispatcher marked and did not send is missing here. The next dispatcher
        # sends it unchanged.
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
def test_sigterm_at_random_moments_suspects_no_task(
    times: int, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """Send SIGTERM during the start, before the first task, and during the work.

    The leases are long: no task may depend on their end.
    """
    random = Random(times)
    fleet = make_fleet(POLLING_LEASE_SECONDS="60")
    fleet.forked = False  # the start of a fork is too short to be hit
    work = Workload(fleet, COSTLY)
    workers = [fleet.workers(processes=1), fleet.workers(processes=2, threads=2)]
    for _ in range(times):
        work.goes_on(random.choice([1, 5, 20, 60]))
        program = random.choice(workers)
        assert program.terminate() in ENDED
        program.start()
        if random.random() < 0.2:
            # The process may have no handler yet, or be in the middle of its start.
            fleet.until(
                lambda program=program: program.children(), "the program has started its processes"
            )
            assert program.terminate() in ENDED
            program.start()
    work.comes_to_its_end()
    assert deployment.value(SUSPECTS) == 0


ENDED = {0, -15}
"""The exit codes of a regular end, and of an end before the process had a signal handler."""
