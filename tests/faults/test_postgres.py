"""PostgreSQL dies, throws us out, has no room, sides against us, or commits and cannot say so."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from support import outages
from support.deployment import Deployment
from support.fleet import Fleet
from support.ordeal import begin_without, in_a_run
from support.proxy import (
    Losses,
    commit_done,
    commit_wanted,
    postgres_proxy,
    postgres_url,
    statement_done,
)
from support.servers import Server, Servers

LARGER = {"pages": 20, "items": 16, "fanout_depth": 1, "delay_ms": 10}
"""Some 5,500 tasks."""

SMALL = {"pages": 6, "items": 8, "fanout_depth": 1, "delay_ms": 5}
"""Some 440 tasks."""

DISPATCHED = "SELECT max(dispatch_no) FROM sync_task"


def _kill(server: Server) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("end", [Server.restart, _kill], ids=["restarted", "killed"])
def test_gone_and_back(
    end: Callable[[Server], None], fleet: Fleet, deployment: Deployment, own_servers: Servers
) -> None:
    with in_a_run(fleet, deployment):
        end(own_servers.postgres)


def test_down_when_workers_start(
    fleet: Fleet, deployment: Deployment, own_servers: Servers
) -> None:
    begin_without(own_servers.postgres, fleet, deployment)


def test_sessions_terminated_all_the_time(fleet: Fleet, deployment: Deployment) -> None:
    with outages.terminating(deployment) as ended, in_a_run(fleet, deployment, after=0):
        pass
    assert ended[0] >= 5


@pytest.mark.long
@pytest.mark.timeout(600)
def test_sessions_terminated_for_minutes(fleet: Fleet, deployment: Deployment) -> None:
    with (
        outages.terminating(deployment) as ended,
        in_a_run(fleet, deployment, LARGER, after=0, quiet=240),
    ):
        pass
    assert ended[0] >= 20


def test_every_connection_taken_by_others(fleet: Fleet, deployment: Deployment) -> None:
    with in_a_run(fleet, deployment), outages.exhausted(deployment):
        before = len(fleet.says())
        fleet.until(
            lambda: fleet.says()[before:].count("PostgreSQL is not available") > 2,
            "nobody gets a connection",
            40,
        )


def test_a_disk_that_is_full(fleet: Fleet, deployment: Deployment) -> None:
    """Everybody waits: no task is blamed for it, and none is run again.

    The saver gives up a batch that a server which answers refuses ten times; it must not take this
    for such a case.
    """
    with in_a_run(fleet, deployment), outages.disk_full(deployment):
        fleet.until(
            lambda: fleet.says().count("No space left on device") > 20, "savers wait for room", 60
        )
    assert deployment.value(DISPATCHED) == 1


# Replies that never come
# ----------------------------------------------------------------------------------------------


LOST = {
    "the reply of a commit": (commit_done, 0.2),
    "the commit itself": (commit_wanted, 0.2),
    "the reply of any statement": (statement_done, 0.02),
}


@pytest.mark.parametrize("what", LOST)
def test_lost(what: str, make_fleet: Callable[..., Fleet], deployment: Deployment) -> None:
    """Whether it was done is looked up in the ledger, by doing it again: the fence refuses what
    was done.
    """
    matches, rate = LOST[what]
    losses = Losses(matches, rate, seed=9)
    with postgres_proxy(deployment.database_url, losses) as proxy:
        url = postgres_url(deployment.database_url, proxy)
        with in_a_run(make_fleet(DATABASE_URL=url), deployment, SMALL, after=0):
            pass
        assert losses.lost >= 5


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(5))
def test_lost_for_long(seed: int, make_fleet: Callable[..., Fleet], deployment: Deployment) -> None:
    for matches, rate in ((commit_done, 0.3), (statement_done, 0.02)):
        losses = Losses(matches, rate, seed=seed)
        with postgres_proxy(deployment.database_url, losses) as proxy:
            fleet = make_fleet(DATABASE_URL=postgres_url(deployment.database_url, proxy))
            with in_a_run(fleet, deployment, after=0, quiet=240):
                pass
            assert losses.lost >= 20
            fleet.end()


# Deadlocks
# --------------------------------------------------------------------------------------------------

INVENTED = """
INSERT INTO user_integration_content (user_integration_id, integration_domain, external_id, kind,
    digest, content_seq, metadata_seq)
SELECT id, integration_domain, %s, 'greeting', '', 0, 0 FROM user_integration
"""
ITS_TASK = "SELECT id FROM sync_task WHERE payload->>'id' = %s FOR UPDATE"
WAIT_FOR = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
LAST_ITEM = "10-13-13"


@pytest.mark.parametrize("victim", ["the engine", "somebody else"])
def test_a_deadlock(victim: str, make_fleet: Callable[..., Fleet], deployment: Deployment) -> None:
    """A transaction of others holds an item that a saver is about to write, and wants the task that
    the saver holds.

    Who has waited for `deadlock_timeout` looks whether there is a deadlock, and is ended if there
    is.
    """
    fleet = make_fleet(POLLING_LEASE_SECONDS="20")  # longer than anybody waits here
    engines, others = ("2s", "1h") if victim == "the engine" else ("1h", "10ms")
    name = deployment.database_url.split("?")[0].rsplit("/", 1)[1]
    deployment.rows(f"ALTER DATABASE \"{name}\" SET deadlock_timeout = '{engines}'")
    with in_a_run(fleet, deployment, after=50), deployment.connection() as other:
        other.execute(f"SET deadlock_timeout = '{others}'")
        other.execute("BEGIN")
        other.execute(INVENTED, (LAST_ITEM,))
        fleet.until(
            lambda: deployment.value(WAIT_FOR, other.info.backend_pid), "a saver waits for us"
        )
        if victim == "the engine":
            assert other.execute(ITS_TASK, (LAST_ITEM,)).fetchone()
        else:
            with pytest.raises(psycopg.errors.DeadlockDetected):
                other.execute(ITS_TASK, (LAST_ITEM,))
        other.execute("ROLLBACK")
    assert ("deadlock detected" in fleet.says()) == (victim == "the engine")
    assert deployment.value(DISPATCHED) == 1
