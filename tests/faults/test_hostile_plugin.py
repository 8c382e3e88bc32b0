"""One bad thing stays one bad thing: tasks that hang, crash, lie and leak secrets.

Their neighbours, which only want to work, are not affected.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from integration_polling_hostile import Credentials, Hostile
from integration_polling_hostile.deeds import GARBAGE
from support import oracle
from support.accounts import connect, sync, tick
from support.deployment import Deployment
from support.fleet import HOSTILE, Fleet
from support.hostile import NEIGHBOURS, assert_neighbours_done, parked

STATUS = "SELECT sync_status, status_reason FROM user_integration WHERE id = %s"


def test_a_task_that_kills_its_process_is_parked_after_three_crashes(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """The neighbours die with these tasks again and again, and no neighbour is convicted."""
    fleet = make_fleet(**HOSTILE, POLLING_LEASE_SECONDS="1")
    fleet.workers(processes=1)
    account = connect(
        deployment,
        Hostile,
        {"deeds": ["segfault", "exit_process"], "neighbours": 60, "neighbour_ms": 20},
    )
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, 80)
    assert parked(deployment) == dict.fromkeys(
        ["segfault", "exit_process"], "its process died or hung while it ran"
    )
    # One of the two may cause one crash of a suspected neighbour the first time, before it is
    # itself a suspect.
    assert_neighbours_done(deployment, crashes=1)
    oracle.assert_runs(fleet, account, ["partial"])


def test_garbage_parks_its_task_and_no_other(hostile_fleet: Fleet, deployment: Deployment) -> None:
    deeds = [*GARBAGE, "permanent", "skip", "skip_message", "system_exit"]
    hostile_fleet.workers(POLLING_MAX_ATTEMPTS="1")
    account = connect(deployment, Hostile, {"deeds": deeds, "flood": 1_000_000, "neighbours": 20})
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet, 60)
    reasons = parked(deployment)
    assert reasons.keys() == {*deeds, "flood"} - {"skip"}
    assert all(reasons.values()), f"some are parked without a reason: {reasons}"
    assert (
        reasons["flood"]
        == "a result may contain at most 100,000 tasks; return a follow-up task for the rest"
    )
    assert_neighbours_done(deployment)
    oracle.assert_runs(hostile_fleet, account, ["partial"])


def test_a_task_that_exhausts_the_memory_is_parked(
    hostile_fleet: Fleet, deployment: Deployment
) -> None:
    """The address space of the workers is limited, like the memory of a container."""
    hostile_fleet.workers(processes=1, memory_kib=3_000_000, POLLING_MAX_ATTEMPTS="2")
    account = connect(deployment, Hostile, {"deeds": ["eat_memory"], "neighbours": 40})
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet)
    assert parked(deployment) == {"eat_memory": "after 2 attempts: MemoryError"}
    assert_neighbours_done(deployment)


def test_a_hanging_task_does_not_keep_its_slot(
    hostile_fleet: Fleet, deployment: Deployment
) -> None:
    """A task that never returns occupies the only thread.

    Its neighbours are slow, so that no task is prefetched.
    """
    hostile_fleet.workers(processes=1, threads=1)
    account = connect(
        deployment, Hostile, {"deeds": ["hang"], "neighbours": 6, "neighbour_ms": 700}
    )
    sync(deployment, account)
    hostile_fleet.until(
        lambda: deployment.rows(NEIGHBOURS) == [(6, 6)], "the neighbours are done", 30
    )
    assert "hangs in" in hostile_fleet.says()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_task_that_never_ends_is_parked_after_three_crashes(
    hostile_fleet: Fleet, deployment: Deployment
) -> None:
    """No exception ends these tasks: one never receives it, the other swallows every one.

    Their threads are abandoned, and their leases expire.
    """
    hostile_fleet.workers(processes=1)
    account = connect(
        deployment,
        Hostile,
        {"deeds": ["hang", "swallow_for_ever"], "neighbours": 40, "neighbour_ms": 50},
    )
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet, 240, replace=False)
    assert parked(deployment) == dict.fromkeys(
        ["hang", "swallow_for_ever"], "its process died or hung while it ran"
    )
    assert_neighbours_done(deployment)
    oracle.assert_runs(hostile_fleet, account, ["partial"])


def test_a_loop_in_c_beyond_its_lease_parks_no_neighbour(
    hostile_fleet: Fleet, deployment: Deployment
) -> None:
    """The loop holds the interpreter's lock beyond its own lease and those of its neighbours.

    Each neighbour is done in the end.
    """
    hostile_fleet.workers(processes=1, POLLING_LEASE_SECONDS="1")
    account = connect(
        deployment, Hostile, {"deeds": ["loop_in_c"], "neighbours": 20, "neighbour_ms": 50}
    )
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet, replace=False)
    assert parked(deployment).keys() <= {"loop_in_c"}
    # While no thread renews leases, it may look as if a suspected neighbour had died twice. It
    # takes three crashes to park a task.
    assert_neighbours_done(deployment, crashes=2)


@pytest.mark.long
def test_an_endless_loop_in_c_does_not_stop_its_neighbours(
    hostile_fleet: Fleet, deployment: Deployment
) -> None:
    hostile_fleet.workers(processes=1)
    account = connect(
        deployment, Hostile, {"deeds": ["loop_in_c_forever"], "neighbours": 20, "neighbour_ms": 50}
    )
    sync(deployment, account)
    hostile_fleet.until(
        lambda: deployment.rows(NEIGHBOURS) == [(20, 20)],
        "the neighbours are done",
        60,
        replace=True,
    )


def test_a_time_limit_ends_python_code(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """A loop in Python is parked after three crashes.

    A task that swallows every exception and then returns after all is done.
    """
    hostile_fleet.workers()
    account = connect(deployment, Hostile, {"deeds": ["loop_in_python", "swallow"]})
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet)
    assert parked(deployment) == {"loop_in_python": "crashed 3 times: over its time limit of 1 s"}
    assert_neighbours_done(deployment)


def test_an_account_that_stops_does_not_stop_the_others(
    hostile_fleet: Fleet, deployment: Deployment
) -> None:
    """Invalid credentials or an invalid configuration stop their account only.

    An expired cursor starts a resync.
    """
    hostile_fleet.workers()
    deeds = ["credentials", "configuration", "expire_cursor", "sleep"]
    accounts = {deed: connect(deployment, Hostile, {"deeds": [deed]}) for deed in deeds}
    tick(deployment)
    live = [accounts["expire_cursor"], accounts["sleep"]]
    ended = (
        "SELECT count(*) FROM sync_run WHERE user_integration_id = ANY(%s) AND state = 'succeeded'"
    )
    hostile_fleet.until(lambda: deployment.value(ended, live) == 2, "the other accounts are synced")
    for stopped in ("credentials", "configuration"):
        expected = [("error", stopped)]
        hostile_fleet.until(
            lambda wanted=expected, one=accounts[stopped]: deployment.rows(STATUS, one) == wanted,
            stopped,
        )
    tick(deployment)
    hostile_fleet.until(lambda: deployment.value(ended, live) == 3, "the resync is done")
    triggers = deployment.rows(
        "SELECT trigger FROM sync_run WHERE user_integration_id = %s ORDER BY started_at", live[0]
    )
    assert triggers == [("schedule",), ("resync",)]
    assert not parked(deployment)


SECRET = "s3cr3t/with+specials&and=signs"


def test_a_leaked_secret_is_redacted_in_rows_logs_and_redis(
    hostile_fleet: Fleet, deployment: Deployment
) -> None:
    hostile_fleet.workers(POLLING_LOG_LEVEL="DEBUG", POLLING_MAX_ATTEMPTS="2")
    account = connect(deployment, Hostile, {"deeds": ["leak"] * 4}, Credentials(token=SECRET))
    sync(deployment, account)
    redis = b""

    def ended() -> bool:
        nonlocal redis
        redis += everything_in_redis(deployment)
        return not deployment.value(oracle.OPEN)

    hostile_fleet.until(ended, "the run ends")
    tables = ("sync_task", "sync_run", "user_integration_content")
    rows = [row for table in tables for row in deployment.rows(f"SELECT t::text FROM {table} t")]
    assert "Authorization: Bearer ***" in str(rows)
    assert "the token is ***" in hostile_fleet.says()
    for place in (str(rows), hostile_fleet.says(), redis.decode("latin-1")):
        assert place
        assert "s3cr3t" not in place


def everything_in_redis(deployment: Deployment) -> bytes:
    """Return the dump of every key of the namespace."""
    client = deployment.queues.client
    return b"".join(client.dump(key) or b"" for key in client.scan_iter(deployment.queues.key("*")))
