"""PostgreSQL dies, ends sessions, is full, breaks a deadlock, or commits without a reply."""

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
"""A tree of about 5,500 tasks."""

SMALL = {"pages": 6, "items": 8, "fanout_depth": 1, "delay_ms": 5}
"""A tree of about 440 tasks."""

DISPATCHED = "SELECT max(dispatch_no) FROM sync_task"


def _kill(server: Server) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(Server.restart, id="restarted", marks=pytest.mark.long),
        pytest.param(_kill, id="killed"),
    ],
)
def test_a_restart_of_postgresql_loses_and_repeats_nothing(
    end: Callable[[Server], None], fleet: Fleet, deployment: Deployment, own_servers: Servers
) -> None:
    with in_a_run(fleet, deployment):
        end(own_servers.postgres)


def test_workers_that_start_without_postgresql_wait_for_it(
    fleet: Fleet, deployment: Deployment, own_servers: Servers
) -> None:
    begin_without(own_servers.postgres, fleet, deployment)


def test_terminated_sessions_lose_and_repeat_nothing(fleet: Fleet, deployment: Deployment) -> None:
    with outages.terminating(deployment) as ended, in_a_run(fleet, deployment, after=0):
        pass
    assert ended[0] >= 5


@pytest.mark.long
@pytest.mark.timeout(600)
def test_sessions_terminated_for_minutes_lose_and_repeat_nothing(
    fleet: Fleet, deployment: Deployment
) -> None:
    with (
        outages.terminating(deployment) as ended,
        in_a_run(fleet, deployment, LARGER, after=0, quiet=240),
    ):
        pass
    assert ended[0] >= 20


def test_a_run_completes_after_others_took_every_connection(
    fleet: Fleet, deployment: Deployment
) -> None:
    with in_a_run(fleet, deployment), outages.exhausted(deployment):
        before = len(fleet.says())
        fleet.until(
            lambda: fleet.says()[before:].count("PostgreSQL is not available") > 2,
            "no process gets a connection",
            40,
        )


def test_a_full_disk_makes_savers_wait_and_blames_no_task(
    fleet: Fleet, deployment: Deployment
) -> None:
    """All savers wait. No task is blamed for the full disk, and none runs again.

    The saver gives up a batch that a live server has refused ten times. It must not count a full
    disk as such a refusal.
    """
    with in_a_run(fleet, deployment), outages.disk_full(deployment):
        fleet.until(
            lambda: fleet.says().count("No space left on device") > 20, "savers wait for room", 60
        )
    assert deployment.value(DISPATCHED) == 1


# Replies that never come
# ----------------------------------------------------------------------------------------------


FIVE_MINUTES = pytest.mark.timeout(300)
LOST = {
    "the reply of a commit": (commit_done, 0.2),
    "the commit itself": (commit_wanted, 0.2),
    "the reply of any statement": (statement_done, 0.02),
}


@pytest.mark.parametrize(
    ("what", "most"),
    [
        ("the reply of a commit", 12),
        *(pytest.param(what, 1_000, marks=[pytest.mark.long, FIVE_MINUTES]) for what in LOST),
    ],
)
def test_lost_commits_and_replies_lose_and_repeat_nothing(
    what: str, most: int, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """The work is repeated, and the fence refuses it if the commit was done."""
    matches, rate = LOST[what]
    losses = Losses(matches, rate, most=most, seed=9)
    with postgres_proxy(deployment.database_url, losses) as proxy:
        url = postgres_url(deployment.database_url, proxy)
        with in_a_run(make_fleet(DATABASE_URL=url), deployment, SMALL, after=0, quiet=240):
            pass
        assert losses.lost >= 5


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(5))
def test_replies_lost_for_minutes_lose_and_repeat_nothing(
    seed: int, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
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


@pytest.mark.parametrize(
    "victim", ["the engine", pytest.param("somebody else", marks=pytest.mark.long)]
)
def test_a_deadlock_with_another_transaction_repeats_no_task(
    victim: str, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """Another transaction locks an item that a saver is about to write.

    Then it wants the task that the saver has locked. The session that has waited for
    `deadlock_timeout` checks for a deadlock, and is ended if there is one.
    """
    fleet = make_fleet(POLLING_LEASE_SECONDS="20")  # longer than any wait in this test
    engines, others = ("2s", "1h") if victim == "the engine" else ("1h", "10ms")
    name = deployment.database_url.split("?")[0].rsplit("/", 1)[1]
    deployment.rows(f"ALTER DATABASE \"{name}\" SET deadlock_timeout = '{engines}'")
    with in_a_run(fleet, deployment, after=50), deployment.connection() as other:
        other.execute(f"SET deadlock_timeout = '{others}'")
        other.execute("BEGIN")
        other.execute(INVENTED, (LAST_ITEM,))
        fleet.until(
            lambda: deployment.value(WAIT_FOR, other.info.backend_pid),
            "a saver waits for the other transaction",
        )
        if victim == "the engine":
            assert other.execute(ITS_TASK, (LAST_ITEM,)).fetchone()
        else:
            with pytest.raises(psycopg.errors.DeadlockDetected):
                other.execute(ITS_TASK, (LAST_ITEM,))
        other.execute("ROLLBACK")
    assert ("deadlock detected" in fleet.says()) == (victim == "the engine")
    assert deployment.value(DISPATCHED) == 1
