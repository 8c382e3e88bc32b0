"""PostgreSQL loses transactions: a standby that misses the last ones is promoted."""

from __future__ import annotations

import signal
from collections.abc import Callable

from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet, send
from support.replicas import Replica
from support.servers import Servers

CONFIG = {"pages": 6, "items": 2, "fanout_depth": 1, "delay_ms": 1500}

QUEUED = "SELECT id FROM sync_task WHERE state = 'queued' AND type <> 'start'"


def test_results_of_a_lost_time_line_are_refused(
    make_fleet: Callable[..., Fleet], deployment: Deployment, own_servers: Servers
) -> None:
    """A stopped worker holds tasks of transactions that are lost, and Redis is flushed.

    After the promotion, other tasks have the same ids and dispatch numbers. The results of the
    worker must not count as theirs.
    """
    fleet = make_fleet(POLLING_LEASE_SECONDS="60")
    first, second = (connect(deployment, HelloWorld, CONFIG) for _ in range(2))
    replica = Replica(own_servers)
    zombie = fleet.workers(processes=1)
    fleet.ready()
    sync(deployment, first)
    lost = fleet.until(lambda: deployment.rows(QUEUED), "tasks of the first account run")
    (pid,) = set(fleet.worker_pids()) & zombie.children()
    send(signal.SIGSTOP, pid)
    replica.promote()
    deployment.queues.client.flushall()
    fleet.workers(processes=1)
    fleet.until(lambda: len(fleet.worker_pids()) == 1, "the other worker is registered")
    sync(deployment, second)
    fleet.until(lambda: set(lost) & set(deployment.rows(QUEUED)), "tasks have the same ids")
    send(signal.SIGCONT, pid)
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_synced(fleet, second, CONFIG)
    assert not deployment.rows(oracle.CONTENT, first)
