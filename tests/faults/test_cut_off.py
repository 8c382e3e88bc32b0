"""One side of the network fails: only some processes reach Redis, or none."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, set_due, sync
from support.deployment import Deployment
from support.fleet import GATED, Fleet, send
from support.gates import Gate
from support.gates.kill import closed
from support.gates.plugin import Gated
from support.proxy import Losses, redis_proxy, redis_url
from support.servers import Servers

SMALL = {"pages": 5, "items": 6, "fanout_depth": 1}
TWO = {"pages": 2}

LEADER = "SELECT leader FROM engine_state WHERE leader_until > clock_timestamp()"
LAST_LEADER = "SELECT leader FROM engine_state"
SENDERS = "SELECT count(*) FROM process WHERE can_send_at IS NOT NULL"
NOTICED = "Redis is unavailable; the leader dispatches nothing"


@pytest.mark.parametrize("hanging", [0.0, 1.0], ids=["refused", "silent"])
def test_a_leader_that_cannot_reach_redis_hands_over(
    hanging: float, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """Its connections to PostgreSQL work. A candidate that reaches Redis dispatches."""
    fleet = make_fleet(POLLING_LEASE_SECONDS="60")
    cut = threading.Event()
    losses = Losses(lambda direction, message: cut.is_set(), rate=1.0, hanging=hanging)
    with redis_proxy(deployment.redis_url, losses) as proxy:
        fleet.workers(processes=1, REDIS_URL=redis_url(proxy))
        fleet.ready()
        leader = deployment.value(LEADER)
        fleet.workers(processes=1)
        fleet.ready()
        assert deployment.value(LEADER) == leader
        cut.set()
        account = connect(deployment, HelloWorld, SMALL)
        sync(deployment, account)
        oracle.wait_for_quiet(fleet, 50, replace=False)
        assert deployment.value(LEADER) != leader
    oracle.assert_synced(fleet, account, SMALL)
    assert deployment.value("SELECT max(dispatch_no) FROM sync_task") == 1


@pytest.mark.parametrize(
    "seconds", [0, pytest.param(600, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_without_redis_the_leader_stays_and_works_on(
    seconds: int, make_fleet: Callable[..., Fleet], deployment: Deployment, own_servers: Servers
) -> None:
    """It expires leases, ends runs and polls. An expired lease makes no suspect.

    No candidate reaches Redis either, so the leader stays the same. The tasks wait at a gate until
    every dispatcher has noticed that Redis is away.
    """
    slow, done, due = (connect(deployment, Gated, TWO) for _ in range(3))
    deployment.rows("UPDATE user_integration SET next_sync_at = now() + interval '1 day'")
    fleet = make_fleet(**GATED, POLLING_CRON_SCHEDULE="* * * * *")
    fleet.workers(processes=1)
    fleet.workers(processes=1)
    fleet.ready()
    running = "SELECT id FROM sync_task WHERE state = 'queued' AND type <> 'start'"
    with closed(fleet, Gate.IN_PLUGIN) as plugin:
        sync(deployment, slow)
        plugin.reached(by=2)
        own_servers.valkey.kill()
        fleet.until(lambda: NOTICED in fleet.says(), "the leader has noticed")
        fleet.until(lambda: not deployment.value(SENDERS), "the candidate has noticed")
        leader = deployment.value(LAST_LEADER)
        assert len(deployment.rows(running)) == 2
        pids = fleet.worker_pids()
        send(signal.SIGSTOP, *pids)
    try:
        forgotten = sync_without_redis(deployment, done)
        started = time.monotonic()
        fleet.until(lambda: not deployment.rows(running), "the leases expire")
        ended = "SELECT state = 'succeeded' FROM sync_run WHERE id = %s"
        fleet.until(lambda: deployment.value(ended, forgotten), "a run ends")
        set_due(deployment, due)
        polled = "SELECT count(*) FROM sync_run WHERE user_integration_id = %s"
        fleet.until(lambda: deployment.value(polled, due), "an account is polled")
        while time.monotonic() < started + seconds:
            assert deployment.value(LAST_LEADER) == leader
            time.sleep(1)
        assert deployment.value(LAST_LEADER) == leader
        assert not deployment.value("SELECT bool_or(suspect) FROM sync_task")
    finally:
        own_servers.valkey.start()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    sync(deployment, due)
    oracle.wait_for_quiet(fleet, 60)
    oracle.assert_synced(fleet, slow, TWO)
    oracle.assert_synced(fleet, due, TWO)
    oracle.assert_nobody_convicted(deployment)


def sync_without_redis(deployment: Deployment, account: object) -> object:
    """Request a run that has no open task, as if its last saver had died; return its id."""
    from core.ledger.scheduling import request_run

    with deployment.connection() as connection:
        run, _ = request_run(connection, account)  # type: ignore[arg-type]
        connection.execute(
            "UPDATE sync_task SET state = 'done', finished_at = now() WHERE run_id = %s", (run,)
        )
    return run
