"""Every point at which a process may die, reached exactly.

The process waits there at a gate and is killed with SIGKILL. The ledger and Redis then prove that
it was there. Other processes have to finish its work within a lease and a sweep.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from uuid import UUID

import pytest
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import GATED, Fleet, Program, send
from support.gates import Gate
from support.gates.kill import (
    TRIGGERS,
    closed,
    kill_the_writer,
    nobody_at_gates,
    writes_held,
    writing,
)
from support.gates.plugin import Gated
from support.metered import calls

TREE = {"pages": 2, "items": 4, "fanout_depth": 1}

RECOVERY_SECONDS = 45.0
"""The time to recover with leases of 2 s. Dramatiq alone would not have noticed after a minute."""

STATES = "SELECT state, count(*) FROM sync_task WHERE type <> 'start' GROUP BY state"
KEPT = "SELECT count(*) FROM user_integration_content"
IDS = "SELECT id || '-' || dispatch_no FROM sync_task WHERE type <> 'start' AND state = %s"


@pytest.fixture
def gated(make_fleet: Callable[..., Fleet], deployment: Deployment) -> Fleet:
    """Return a fleet with all gates in place, and open."""
    deployment.rows(TRIGGERS)
    return make_fleet(**GATED)


@pytest.fixture
def patient(make_fleet: Callable[..., Fleet], deployment: Deployment) -> Fleet:
    """Return a gated fleet whose leases do not expire, so that only other means redeliver work."""
    deployment.rows(TRIGGERS)
    return make_fleet(**GATED, POLLING_LEASE_SECONDS="120")


def start(fleet: Fleet) -> Program:
    """Start one worker process and a dispatcher."""
    return fleet.workers(processes=1, threads=2, modules=["support.gates.broker"])


def ids(fleet: Fleet, state: str) -> set[str]:
    return {id for (id,) in fleet.deployment.rows(IDS, state)}


def in_hash(fleet: Fleet) -> set[str]:
    [found] = fleet.deployment.queues.ids(Gated.manifest.domain)
    return found


# A worker
# --------------------------------------------------------------------------------------------------


def nothing_ran(fleet: Fleet) -> None:
    assert ids(fleet, "queued")
    assert not ids(fleet, "done")
    assert not calls(fleet.deployment.home)


def ran_and_nothing_kept(fleet: Fleet) -> None:
    assert calls(fleet.deployment.home)
    assert not ids(fleet, "done")
    assert not fleet.deployment.value(KEPT)


def kept_and_not_acknowledged(fleet: Fleet) -> None:
    assert ids(fleet, "done")
    assert ids(fleet, "done") & in_hash(fleet)


def kept_and_acknowledged(fleet: Fleet) -> None:
    assert fleet.deployment.value(KEPT)
    assert ids(fleet, "done") - in_hash(fleet)


WORKER: dict[Gate, Callable[[Fleet], None]] = {
    Gate.BEFORE_PLUGIN: nothing_ran,
    Gate.IN_PLUGIN: ran_and_nothing_kept,
    Gate.BEFORE_COMMIT: ran_and_nothing_kept,
    Gate.IN_COMMIT: kept_and_not_acknowledged,
    Gate.AFTER_ACK: kept_and_acknowledged,
}
"""The state that must be found after a worker was killed at a gate."""


SHORT = (Gate.BEFORE_COMMIT, Gate.AFTER_ACK)
"""The gates at which a worker is also killed in the short form of these tests."""


@pytest.mark.parametrize(
    "gate",
    [pytest.param(gate, marks=[] if gate in SHORT else pytest.mark.long) for gate in WORKER],
    ids=lambda gate: gate.name.lower(),
)
def test_a_worker_killed_at_any_gate_loses_no_task(
    gate: Gate, gated: Fleet, deployment: Deployment
) -> None:
    account = connect(deployment, Gated, TREE)
    with closed(gated, gate) as point:
        workers = start(gated)
        sync(deployment, account)
        point.reached()
        workers.kill()
    nobody_at_gates(gated)
    WORKER[gate](gated)
    recovers(gated, account)


def test_a_worker_killed_between_commit_and_ack_repeats_no_task(
    gated: Fleet, deployment: Deployment
) -> None:
    """The worker may commit, and Valkey does not take the ack."""
    account = connect(deployment, Gated, TREE)
    with closed(gated, Gate.IN_COMMIT) as commit:
        start(gated)
        sync(deployment, account)
        commit.reached()
        with writes_held(gated):
            commit.open()
            gated.until(lambda: writing(gated, "hdel"), "the ack is sent")
            kill_the_writer(gated, gated.worker_pids()[0], "hdel")
    kept_and_not_acknowledged(gated)
    recovers(gated, account)


def test_a_run_ends_though_its_worker_is_killed_after_the_last_commit(
    gated: Fleet, deployment: Deployment
) -> None:
    """No process is left that would check whether the run is complete; the leader does it."""
    account = connect(deployment, Gated, {"pages": 1, "items": 2})
    with deployment.connection() as connection, ExitStack() as held:
        workers = start(gated)
        with closed(gated, Gate.IN_COMMIT) as commit:
            sync(deployment, account)
            commit.reached()
            held.enter_context(connection.transaction())
            connection.execute(
                "SELECT 1 FROM user_integration WHERE id = %s FOR UPDATE", (account,)
            )
        gated.until(lambda: deployment.value(COMPLETING), "a process tries to end the run")
        workers.kill()
        assert dict(deployment.rows(STATES)) == {"done": 1}
        assert deployment.value(oracle.OPEN) == 1
    recovers(gated, account, {"pages": 1, "items": 2})


COMPLETING = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND query LIKE '%ORDER BY a.id FOR NO KEY UPDATE%'
"""


def recovers(fleet: Fleet, account: UUID, config: dict[str, int] = TREE) -> None:
    """Assert that all tasks are done once, after a supervisor has restarted the ended programs."""
    fleet.let_the_lead_run_out()
    oracle.wait_for_quiet(fleet, RECOVERY_SECONDS)
    oracle.assert_synced(fleet, account, config)
    oracle.assert_nobody_convicted(fleet.deployment)


# The dispatcher
# --------------------------------------------------------------------------------------------------


@contextmanager
def killed_in_the_claim(fleet: Fleet) -> Iterator[None]:
    """Kill the dispatcher after it has sent its commit, before it receives the reply."""
    with closed(fleet, Gate.IN_CLAIM) as claim:
        yield
        claim.reached()
        send(signal.SIGKILL, *fleet.dispatcher_pids())
    nobody_at_gates(fleet)


@contextmanager
def killed_before_the_send(fleet: Fleet) -> Iterator[None]:
    """Kill the dispatcher after its commit, while Valkey does not take the messages."""
    with closed(fleet, Gate.IN_CLAIM) as claim:
        yield
        claim.reached()
        with writes_held(fleet):
            claim.open()
            fleet.until(lambda: writing(fleet, "hset"), "the messages are sent")
            [dispatcher] = fleet.dispatcher_pids()
            kill_the_writer(fleet, dispatcher, "hset")


@pytest.mark.parametrize(
    "killed",
    [pytest.param(killed_in_the_claim, marks=pytest.mark.long), killed_before_the_send],
    ids=lambda one: one.__name__,
)
def test_a_dispatcher_killed_between_commit_and_send_loses_no_message(
    killed: Callable[[Fleet], AbstractContextManager[None]], patient: Fleet, deployment: Deployment
) -> None:
    """The next dispatcher sends the messages unchanged: the root task keeps its first dispatch."""
    account = connect(deployment, Gated, TREE)
    start(patient)
    patient.ready()
    with killed(patient):
        sync(deployment, account)
    assert deployment.rows("SELECT state, dispatch_no FROM sync_task") == [("queued", 1)]
    assert not in_hash(patient)
    is_taken_over(patient, account)


def test_a_dispatcher_killed_after_the_send_repeats_no_dispatch(
    patient: Fleet, deployment: Deployment
) -> None:
    account = connect(deployment, Gated, TREE)
    start(patient)
    patient.ready()
    with closed(patient, Gate.BEFORE_PLUGIN) as plugin:
        sync(deployment, account)
        plugin.reached()
        send(signal.SIGKILL, *patient.dispatcher_pids())
        assert ids(patient, "queued") <= in_hash(patient)
    is_taken_over(patient, account)


def is_taken_over(fleet: Fleet, account: UUID) -> None:
    """Assert that a worker process takes over and that no task ran a second time.

    The parent of the dispatcher does not notice that it died.
    """
    fleet.let_the_lead_run_out(18)
    oracle.wait_for_quiet(fleet, RECOVERY_SECONDS, replace=False)
    oracle.assert_synced(fleet, account, TREE)
    assert "no dispatcher is leading; starting one in this process" in fleet.says()
    # Count calls, not dispatches: a process that cannot look in time releases unstarted tasks.
    assert sum(map(len, calls(fleet.deployment.home).values())) == oracle.hello_tasks(TREE) - 1
    oracle.assert_nobody_convicted(fleet.deployment)
