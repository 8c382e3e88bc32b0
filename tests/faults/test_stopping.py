"""Accounts are stopped while processes hold their tasks: prefetched is not owned."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from support import oracle
from support.accounts import connect, sync, tick
from support.deployment import Deployment
from support.fleet import METERED, Fleet
from support.listening import STARTS, STOPS, Listening
from support.metered import calls

from core.db.pool import Database
from core.ledger import dispatching, pauses
from core.ledger.looks import wait_until_seen
from core.plugins import get_registry
from core.service.accounts import actions as account_actions
from core.service.accounts import disconnect as account_disconnect
from core.service.accounts import erase as account_erase
from core.service.backend import Backend
from core.settings import Settings
from core.transport.messages import dispatch_message

LISTENING = METERED | {"POLLING_PLUGINS": "support.listening"}
DOMAIN = Listening.manifest.domain
ENTRY = {"domain": DOMAIN, "name": "Listening", "version": None, "tasks": {}, "max_tasks": 1}
PREFETCHED = 1_000

PAGES = "SELECT count(*) FROM sync_task WHERE type = 'list_page'"
QUEUE = """
UPDATE sync_task SET state = 'queued', dispatch_no = dispatch_no + 1,
    dispatch_seq = nextval('dispatch_seq'), lease_until = now() + interval '1 minute'
WHERE state = 'ready' RETURNING id, dispatch_no
"""
LAST_TICK = "SELECT coalesce(last_tick_at > %s, false) FROM engine_state"
READY = "SELECT count(*) FROM sync_task WHERE state = 'ready'"
DISPATCHES = "SELECT max(dispatch_no) FROM sync_task"
SUSPECTS = "SELECT count(*) FROM sync_task WHERE suspect OR attempts > 0 OR snoozes > 0"
LEFT = "SELECT count(*) FROM sync_task WHERE state IN ('ready', 'queued')"
WAITING = "SELECT count(*) FROM sync_task WHERE state = 'ready' AND reason LIKE '%paused%'"
HOLDING = "SELECT count(*) FROM process WHERE looked_at IS NOT NULL"
PAUSE = "UPDATE integration SET paused_at = now() WHERE domain = %s"
ACTIONS: dict[str, Callable[[Backend, UUID], object]] = {
    "pause": account_actions.pause,
    "disconnect": account_disconnect.disconnect_account,
    "erase": account_erase.erase_account,
}


@pytest.fixture
def backend(deployment: Deployment) -> Iterator[Backend]:
    """Return the resources of a command of the deployment."""
    database = Database(deployment.database_url)
    settings = Settings(_env_file=None, home=deployment.home)
    yield Backend(settings, database, deployment.queues, deployment.vault, get_registry())
    database.close()


def starts(deployment: Deployment, account: UUID) -> list[float]:
    """Return the times at which tasks of an account started."""
    return calls(deployment.home, STARTS).get(str(account), [])


def prefetch_everything(fleet: Fleet, deployment: Deployment) -> None:
    """Dispatch all ready tasks beyond the window, and wait until a process has fetched them."""
    with deployment.connection() as conn:
        queued = conn.execute(QUEUE).fetchall()
        sent = dispatching.as_sent(conn, [(task, number) for task, number in queued])
    deployment.queues.send(DOMAIN, {one.id: dispatch_message(one) for one in sent})
    fleet.until(lambda: not deployment.queues.waiting(DOMAIN), "all messages are fetched")


@pytest.mark.parametrize(
    "stop", ["pause", pytest.param("disconnect", marks=pytest.mark.long), "erase"]
)
def test_no_call_starts_after_an_account_with_1000_prefetched_tasks_was_stopped(
    stop: str, make_fleet: Callable[..., Fleet], deployment: Deployment, backend: Backend
) -> None:
    fleet = make_fleet(**LISTENING)
    fleet.workers(processes=1, threads=8, dramatiq_queue_prefetch=str(2 * PREFETCHED))
    fleet.ready()
    account = connect(deployment, Listening, {"pages": PREFETCHED, "items": 1, "delay_ms": 400})
    sync(deployment, account)
    fleet.until(lambda: deployment.value(PAGES) >= PREFETCHED, "the tasks are in the ledger")
    prefetch_everything(fleet, deployment)
    fleet.until(lambda: len(starts(deployment, account)) > 10, "some tasks have started")
    before = len(starts(deployment, account))
    ACTIONS[stop](backend, account)
    returned = time.monotonic()
    assert before < PREFETCHED / 2
    fleet.until(lambda: not deployment.queues.length(DOMAIN), "all messages are acknowledged")
    assert [moment for moment in starts(deployment, account) if moment > returned] == []
    if stop == "pause":
        assert deployment.value(LEFT) > PREFETCHED / 2
        assert deployment.value(SUSPECTS) == 0
    fleet.until(lambda: not deployment.value(HOLDING), "the process rests")


def test_running_tasks_of_a_stopped_account_are_told_and_others_are_not(
    make_fleet: Callable[..., Fleet], deployment: Deployment, backend: Backend
) -> None:
    fleet = make_fleet(**LISTENING)
    fleet.workers(processes=1, threads=4)
    fleet.ready()
    config = {"pages": 1, "items": 1, "delay_ms": 60_000}
    paused, erased, other = (connect(deployment, Listening, config) for _ in range(3))
    for account in (paused, erased, other):
        sync(deployment, account)
    fleet.until(lambda: all(starts(deployment, one) for one in (paused, erased, other)), "all run")
    deployment.rows(PAUSE, DOMAIN)
    wait_until_seen(backend.database)
    account_actions.pause(backend, paused)
    account_erase.erase_account(backend, erased)
    for account in (paused, erased):
        fleet.until(lambda id=str(account): id in calls(deployment.home, STOPS), "it stops")
    assert str(other) not in calls(deployment.home, STOPS)
    assert deployment.value(SUSPECTS) == 0


def test_a_paused_integration_starts_no_task_and_loses_none(
    make_fleet: Callable[..., Fleet], deployment: Deployment, backend: Backend
) -> None:
    fleet = make_fleet(**LISTENING)
    fleet.workers(processes=2, threads=4)
    fleet.ready()
    config = {"pages": 300, "items": 1, "delay_ms": 40}
    account = connect(deployment, Listening, config)
    sync(deployment, account)
    fleet.until(lambda: len(starts(deployment, account)) > 30, "some tasks have started")
    with deployment.connection() as conn:
        pauses.pause(conn, ENTRY, None)
    assert wait_until_seen(backend.database)
    returned = time.monotonic()
    fleet.until(lambda: deployment.value(WAITING), "prefetched tasks were returned")
    assert [moment for moment in starts(deployment, account) if moment > returned] == []
    assert deployment.value(oracle.OPEN) == 1
    with deployment.connection() as conn:
        assert pauses.resume(conn, DOMAIN)
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, config)


def test_a_process_that_cannot_look_starts_nothing(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """Another transaction locks the table of changes, which heartbeats and savers do not use."""
    fleet = make_fleet(**LISTENING)
    fleet.workers(processes=1, threads=4)
    fleet.ready()
    config = {"pages": 1_000, "items": 1, "delay_ms": 40}
    account = connect(deployment, Listening, config)
    sync(deployment, account)
    fleet.until(lambda: len(starts(deployment, account)) > 10, "some tasks have started")
    with deployment.connection() as other, other.transaction():
        other.execute("LOCK TABLE control_change IN ACCESS EXCLUSIVE MODE")
        locked = time.monotonic()
        fleet.until(
            lambda: time.monotonic() - starts(deployment, account)[-1] > 3.0, "nothing starts"
        )
        assert starts(deployment, account)[-1] < locked + 2.5
        assert deployment.value(SUSPECTS) == 0
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, config)


def test_tasks_behind_slow_ones_are_left_to_an_idle_process_and_ticks_do_not_wait(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    fleet = make_fleet(**LISTENING)
    fleet.workers(processes=1, threads=2)
    fleet.ready()
    account = connect(deployment, Listening, {"pages": 8, "items": 1, "delay_ms": 60_000})
    sync(deployment, account)
    fleet.until(lambda: len(starts(deployment, account)) == 2, "both threads are busy")
    fleet.until(lambda: not deployment.queues.waiting(DOMAIN), "the rest is prefetched")
    now = deployment.value("SELECT clock_timestamp()")
    tick(deployment)
    fleet.until(lambda: deployment.value(LAST_TICK, now), "the tick did not wait")
    fleet.until(lambda: deployment.value(READY) == 6, "the rest is returned to the ledger")
    fleet.workers(processes=1, threads=8)
    fleet.until(lambda: len(starts(deployment, account)) == 8, "the idle process starts the rest")
    assert deployment.value(DISPATCHES) <= 4
    assert deployment.value(SUSPECTS) == 0


def test_a_single_process_does_not_fetch_again_what_it_has_returned(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    fleet = make_fleet(**LISTENING)
    fleet.workers(processes=1, threads=2)
    fleet.ready()
    slow = connect(deployment, Listening, {"pages": 8, "items": 1, "delay_ms": 8_000})
    sync(deployment, slow)
    fleet.until(lambda: len(starts(deployment, slow)) == 4, "the first two have ended", 40.0)
    assert deployment.value(DISPATCHES) <= 3
