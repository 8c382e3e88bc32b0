"""One bad thing stays one bad thing: tasks that hang, crash, lie and tell secrets, beside
neighbours that want to work.
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


def test_what_kills_its_process_is_parked_after_three_crashes(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """Their neighbours die with them again and again, and none of those is found guilty."""
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
    # One of the two may take a suspected neighbour along the first time, when nobody suspects
    # itself yet.
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


def test_what_eats_memory_is_parked(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """The address space of the workers is bounded, as a container's memory is."""
    hostile_fleet.workers(processes=1, memory_kib=3_000_000, POLLING_MAX_ATTEMPTS="2")
    account = connect(deployment, Hostile, {"deeds": ["eat_memory"], "neighbours": 40})
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet)
    assert parked(deployment) == {"eat_memory": "after 2 attempts: MemoryError"}
    assert_neighbours_done(deployment)


def test_a_slot_comes_back_from_what_hangs(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """One thread, and a task in it that never returns.

    Its neighbours are slow, so that nothing is fetched ahead.
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
def test_what_hangs_for_good_is_parked_after_three_crashes(
    hostile_fleet: Fleet, deployment: Deployment
) -> None:
    """No exception ends them: one hears of none, the other swallows each.

    Their threads are given up, their leases run out.
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


def test_a_loop_in_c(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """It holds the interpreter's lock beyond its lease and those of its neighbours; each of them
    is done in the end.
    """
    hostile_fleet.workers(processes=1, POLLING_LEASE_SECONDS="1")
    account = connect(
        deployment, Hostile, {"deeds": ["loop_in_c"], "neighbours": 20, "neighbour_ms": 50}
    )
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet, replace=False)
    assert parked(deployment).keys() <= {"loop_in_c"}
    # While nobody renews, a neighbour that is watched may seem to have died twice; it is parked for
    # nothing less than three times.
    assert_neighbours_done(deployment, crashes=2)


def test_an_endless_loop_in_c_does_not_take_its_process_along(
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


def test_time_limits_end_what_can_be_ended(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """A loop in Python is parked after three times; who swallows every exception and returns
    after all has returned.
    """
    hostile_fleet.workers()
    account = connect(deployment, Hostile, {"deeds": ["loop_in_python", "swallow"]})
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet)
    assert parked(deployment) == {"loop_in_python": "crashed 3 times: over its time limit of 1 s"}
    assert_neighbours_done(deployment)


def test_accounts_stop_one_by_one(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """Credentials and configuration that do not work stop their account; an expired cursor
    starts a resync.
    """
    hostile_fleet.workers()
    deeds = ["credentials", "configuration", "expire_cursor", "sleep"]
    accounts = {deed: connect(deployment, Hostile, {"deeds": [deed]}) for deed in deeds}
    tick(deployment)
    live = [accounts["expire_cursor"], accounts["sleep"]]
    ended = (
        "SELECT count(*) FROM sync_run WHERE user_integration_id = ANY(%s) AND state = 'succeeded'"
    )
    hostile_fleet.until(lambda: deployment.value(ended, live) == 2, "the others go on")
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


def test_a_secret_stays_secret(hostile_fleet: Fleet, deployment: Deployment) -> None:
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
    """Every key of the namespace as Redis would move it."""
    client = deployment.queues.client
    return b"".join(client.dump(key) or b"" for key in client.scan_iter(deployment.queues.key("*")))
