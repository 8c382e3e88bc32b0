"""Processes that are killed or stopped at any moment: others finish their tasks, once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import GATED, Fleet, send
from support.gates import Gate
from support.gates.kill import TRIGGERS, closed, nobody_at_gates
from support.gates.plugin import Gated
from support.metered import Metered, calls
from support.oracle import COSTLY
from support.workload import Workload

from core.ledger import leases

PAGES = {"pages": 3, "items": 4}


def kill_a_worker(fleet: Fleet, random: Random) -> None:
    victim = random.choice(fleet.until(fleet.worker_pids, "a worker lives", replace=True))
    with suppress(ProcessLookupError):  # it may be ending since its sibling was killed
        send(signal.SIGKILL, victim)


def kill_a_dispatcher(fleet: Fleet, random: Random) -> None:
    """Kill a dispatcher, or a worker if no dispatcher lives.

    Dramatiq does not replace a dispatcher before its program restarts. When both programs have lost
    theirs, a worker process leads.
    """
    if pids := fleet.dispatcher_pids():
        with suppress(ProcessLookupError):
            send(signal.SIGKILL, random.choice(pids))
    else:
        kill_a_worker(fleet, random)
    fleet.let_the_lead_run_out(18)


def kill_a_program(fleet: Fleet, random: Random) -> None:
    random.choice(fleet.programs).kill()
    fleet.let_the_lead_run_out()


def kill_everything(fleet: Fleet, random: Random) -> None:
    for program in fleet.programs:
        program.kill()
    fleet.let_the_lead_run_out()


KILLS = [kill_a_worker, kill_a_worker, kill_a_dispatcher, kill_a_program, kill_everything]


@pytest.mark.parametrize(
    "kills", [6, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(3600)])]
)
def test_kills_at_random_moments_lose_no_task(
    kills: int, fleet: Fleet, deployment: Deployment
) -> None:
    """Use each kind of kill in turn, in an order and at moments that the seed decides.

    A supervisor restarts programs that have ended.
    """
    random = Random(kills)
    work = Workload(fleet, COSTLY)
    fleet.workers(processes=2, threads=2)
    fleet.workers(processes=1, threads=2)
    for turn in range(kills):
        if turn % len(KILLS) == 0:
            order = random.sample(KILLS, len(KILLS))
        work.goes_on(random.randint(1, 150))
        order[turn % len(KILLS)](fleet, random)
    # A suspect whose process is killed again has another crash. None has reached three, or it would
    # be parked.
    work.comes_to_its_end()


def test_results_of_a_worker_that_resumes_too_late_are_refused(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """The worker was stopped in the middle of two tasks.

    Another worker does them in the meantime, and the results of the first are refused.
    """
    fleet = make_fleet(**GATED, POLLING_LEASE_SECONDS="60")
    first = fleet.workers(processes=1, threads=2)
    fleet.ready()
    [zombie] = fleet.worker_pids()
    account = connect(deployment, Gated, PAGES)
    with closed(fleet, Gate.IN_PLUGIN) as plugin:
        sync(deployment, account)
        plugin.reached(by=2)
        send(signal.SIGSTOP, zombie)
    let_leases_run_out(deployment)
    second = fleet.workers(processes=1)
    fleet.until(
        lambda: deployment.value(PAGES_DONE) == PAGES["pages"],
        "the second worker does the tasks",
        40,
    )
    send(signal.SIGCONT, zombie)
    # A worker saves its remaining results when it ends.
    assert first.terminate() == 0
    assert second.exit_code is None
    fleet.let_the_lead_run_out()
    oracle.wait_for_quiet(fleet, replace=False)
    assert len(calls(deployment.home)[str(account)]) >= oracle.hello_tasks(PAGES) - 1 + 2, (
        "no task ran twice"
    )
    oracle.assert_synced(fleet, account, PAGES)
    oracle.assert_nobody_convicted(deployment)


def let_leases_run_out(deployment: Deployment) -> None:
    """Expire the leases, as the sweeper does after a minute."""
    with deployment.connection() as connection, connection.transaction():
        connection.execute(
            "UPDATE sync_task SET lease_until = now() - interval '1 second' WHERE state = 'queued'"
        )
        assert leases.expire(connection)


IDLE = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'idle in transaction'
"""
PAGES_DONE = "SELECT count(*) FROM sync_task WHERE state = 'done' AND type = 'list_page'"


def test_a_worker_that_was_stopped_for_long_repeats_no_task(
    fleet: Fleet, deployment: Deployment
) -> None:
    """The worker resumes, or its own watchdog ends the process because it was stopped.

    In the second case a supervisor restarts it.
    """
    fleet.workers(processes=1)
    fleet.ready()
    [zombie] = fleet.worker_pids()
    fleet.workers(processes=1)
    fleet.until(lambda: len(fleet.worker_pids()) == 2, "another worker runs")
    account = connect(deployment, Metered, COSTLY)
    sync(deployment, account)
    oracle.wait_for_progress(fleet, 50)
    send(signal.SIGSTOP, zombie)
    fleet.until(lambda: not deployment.value(oracle.OPEN), "the other worker finishes the run", 60)
    send(signal.SIGCONT, zombie)
    again = connect(deployment, Metered, COSTLY)
    sync(deployment, again)
    oracle.wait_for_quiet(fleet)
    for one in (account, again):
        oracle.assert_synced(fleet, one, COSTLY)
    oracle.assert_nobody_convicted(deployment)


def test_a_worker_that_is_stopped_within_its_transaction_keeps_no_task(
    fleet: Fleet, deployment: Deployment
) -> None:
    """Its session ends after some seconds, so that other workers can lock its tasks."""
    deployment.rows(TRIGGERS)
    fleet.workers(processes=1)
    fleet.ready()
    [zombie] = fleet.worker_pids()
    account = connect(deployment, Metered, COSTLY)
    with closed(fleet, Gate.BEFORE_COMMIT) as gate:
        sync(deployment, account)
        gate.reached()
        send(signal.SIGSTOP, zombie)
    fleet.until(lambda: deployment.value(IDLE) > 0, "its transaction is idle")
    fleet.workers(processes=1)
    fleet.until(lambda: not deployment.value(oracle.OPEN), "another worker finishes the run", 60)
    send(signal.SIGCONT, zombie)
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, COSTLY)
    oracle.assert_nobody_convicted(deployment)


def test_messages_of_a_leader_that_resumes_too_late_do_nothing(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """The leader was stopped between its claim and the sending.

    Another one leads in the meantime, and the messages that the first then sends are duplicates.
    """
    deployment.rows(TRIGGERS)
    fleet = make_fleet(POLLING_LEASE_SECONDS="60")
    fleet.workers(processes=1)
    fleet.ready()
    [leader] = fleet.dispatcher_pids()
    fleet.workers(processes=1)
    fleet.until(lambda: len(fleet.worker_pids()) == 2, "another candidate runs")
    account = connect(deployment, Metered, COSTLY)
    with closed(fleet, Gate.IN_CLAIM) as claim:
        sync(deployment, account)
        claim.reached()
        send(signal.SIGSTOP, leader)
    nobody_at_gates(fleet)
    fleet.let_the_lead_run_out()
    oracle.wait_for_progress(fleet, 200)
    send(signal.SIGCONT, leader)
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_synced(fleet, account, COSTLY)
    assert fleet.says().count("this process is now the leader and dispatches tasks") == 2
    # A task that its budget held back has one more dispatch for each snooze.
    assert not deployment.rows("SELECT id FROM sync_task WHERE dispatch_no > 1 + snoozes LIMIT 5")
