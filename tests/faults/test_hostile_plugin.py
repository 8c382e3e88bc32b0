"""One bad thing stays one bad thing: tasks that hang, crash, lie and flood, beside neighbours that want to work."""

from __future__ import annotations

from collections.abc import Callable

from integration_polling_hostile import Credentials, Endless, Hostile
from integration_polling_hostile.deeds import GARBAGE
from support import oracle
from support.accounts import connect, sync, tick
from support.deployment import Deployment
from support.fleet import HOSTILE, Fleet

from core.ledger.parking import retry

NEIGHBOURS = "SELECT count(*) FILTER (WHERE state = 'done'), count(*) FROM sync_task WHERE type = 'neighbour'"
PARKED = "SELECT coalesce(payload->>'deed', type), reason FROM sync_task WHERE state = 'parked' ORDER BY id"
KEPT = "SELECT external_id FROM user_integration_content"
STATUS = "SELECT sync_status, status_reason FROM user_integration WHERE id = %s"
BOTHERED = "SELECT max(attempts), max(crashes), max(snoozes) FROM sync_task WHERE user_integration_id = %s"


def parked(deployment: Deployment) -> dict[str, str]:
    """The reasons of what is parked, by deed."""
    return {deed: reason or "" for deed, reason in deployment.rows(PARKED)}


def assert_neighbours_done(deployment: Deployment) -> None:
    """All of them, and each brought its content."""
    [(done, known)] = deployment.rows(NEIGHBOURS)
    kept = {name for (name,) in deployment.rows(KEPT)}
    assert done == known == len(kept), f"{done} of {known} neighbours are done, and kept {len(kept)} items"


def test_what_kills_its_process_is_parked_after_three_crashes(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """Their neighbours die with them again and again, and none of those is found guilty."""
    fleet = make_fleet(**HOSTILE, POLLING_LEASE_SECONDS="1")
    fleet.workers(processes=1)
    account = connect(
        deployment, Hostile, {"deeds": ["segfault", "exit_process"], "neighbours": 60, "neighbour_ms": 20}
    )
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, 80)
    assert parked(deployment) == dict.fromkeys(["segfault", "exit_process"], "its process died or hung while it ran")
    assert_neighbours_done(deployment)
    # One of the two may take a suspected neighbour along the first time, when nobody suspects itself yet.
    assert deployment.value("SELECT max(crashes) FROM sync_task WHERE type = 'neighbour'") <= 1
    oracle.assert_runs(fleet, account, ["partial"])


def test_garbage_parks_its_task_and_no_other(hostile_fleet: Fleet, deployment: Deployment) -> None:
    deeds = [*GARBAGE, "permanent", "skip", "system_exit"]
    hostile_fleet.workers(POLLING_MAX_ATTEMPTS="1")
    account = connect(deployment, Hostile, {"deeds": deeds, "flood": 1_000_000, "neighbours": 20})
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet, 60)
    reasons = parked(deployment)
    assert reasons.keys() == {*deeds, "flood"} - {"skip"}
    assert all(reasons.values()), f"some are parked without a reason: {reasons}"
    assert reasons["flood"] == "one result may carry 100,000 tasks; return a task that goes on with the rest"
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
    """One thread, and a task in it that never returns. Its neighbours are slow, so that nothing is fetched ahead."""
    hostile_fleet.workers(processes=1, threads=1)
    account = connect(deployment, Hostile, {"deeds": ["hang"], "neighbours": 6, "neighbour_ms": 700})
    sync(deployment, account)
    hostile_fleet.until(lambda: deployment.rows(NEIGHBOURS) == [(6, 6)], "the neighbours are done", 30)
    assert "hangs in" in hostile_fleet.says()


def test_a_loop_in_c(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """It holds the interpreter's lock beyond its lease and those of its neighbours; each of them is done in the end."""
    hostile_fleet.workers(processes=1, POLLING_LEASE_SECONDS="1")
    account = connect(deployment, Hostile, {"deeds": ["loop_in_c"], "neighbours": 20, "neighbour_ms": 50})
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet, replace=False)
    assert parked(deployment).keys() <= {"loop_in_c"}
    assert_neighbours_done(deployment)


def test_an_endless_loop_in_c_does_not_take_its_process_along(hostile_fleet: Fleet, deployment: Deployment) -> None:
    hostile_fleet.workers(processes=1)
    account = connect(deployment, Hostile, {"deeds": ["loop_in_c_forever"], "neighbours": 20, "neighbour_ms": 50})
    sync(deployment, account)
    hostile_fleet.until(lambda: deployment.rows(NEIGHBOURS) == [(20, 20)], "the neighbours are done", 60, replace=True)


def test_time_limits_end_what_can_be_ended(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """A loop in Python is parked after three times; who swallows every exception and returns after all has returned."""
    hostile_fleet.workers()
    account = connect(deployment, Hostile, {"deeds": ["loop_in_python", "swallow"]})
    sync(deployment, account)
    oracle.wait_for_quiet(hostile_fleet)
    assert parked(deployment) == {"loop_in_python": "3 times: over its time limit of 1 s"}
    assert_neighbours_done(deployment)


def test_a_hundred_thousand_follow_ups(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """They are rows at once, while Redis holds a window of them."""
    hostile_fleet.workers()
    account = connect(deployment, Hostile, {"flood": 100_000, "neighbours": 2})
    sync(deployment, account)
    most = 0

    def flooded() -> bool:
        nonlocal most
        most = max(most, deployment.queues.length("hostile"))
        done = deployment.value(oracle.DONE)
        return done > 3_000

    hostile_fleet.until(flooded, "3,000 follow-ups are done", 40)
    assert deployment.value("SELECT count(*) FROM sync_task WHERE type = 'noop'") == 100_000
    assert 0 < most < 1_000


def test_circles_end_by_their_key_and_spirals_by_the_bound(hostile_fleet: Fleet, deployment: Deployment) -> None:
    workers = hostile_fleet.workers()
    account = connect(deployment, Endless)
    sync(deployment, account)
    oracle.wait_for_progress(hostile_fleet, 200)
    # The bound is looked at once a minute, and when somebody begins to lead; for runs that are 20 s old.
    deployment.rows("UPDATE sync_run SET started_at = started_at - interval '1 minute'")
    workers.terminate()
    workers.start()
    oracle.wait_for_quiet(hostile_fleet)
    assert deployment.value("SELECT count(*) FROM sync_task WHERE type = 'circle'") == 1
    assert deployment.rows("SELECT type, reason FROM sync_task WHERE state = 'parked'") == [
        ("spiral", "the run has more than 100 tasks; a task may be making ever new keys")
    ]
    oracle.assert_runs(hostile_fleet, account, ["partial"])


def test_storms_of_refusals(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """Whatever a provider says of when to come again: no attempt is burned, and other accounts do not notice."""
    hostile_fleet.workers()
    answers = [0, -5, 3600, "soon", [], None]
    storms = [connect(deployment, Hostile, {"deeds": ["rate_limited"] * 5, "retry_after": one}) for one in answers]
    calm = connect(deployment, Hostile, {"neighbours": 30})
    for account in (*storms, calm):
        sync(deployment, account)
    ended = "SELECT count(*) FROM sync_run WHERE user_integration_id = %s AND state = 'succeeded'"
    hostile_fleet.until(lambda: deployment.value(ended, calm), "the calm account is synced")
    hostile_fleet.until(lambda: all(deployment.value(SNOOZED, account) for account in storms), "all were refused")
    for account in storms:
        attempts, crashes, _ = deployment.rows(BOTHERED, account)[0]
        assert attempts == crashes == 0
    assert not parked(deployment)


SNOOZED = "SELECT max(snoozes) > 0 FROM sync_task WHERE user_integration_id = %s"


def test_accounts_stop_one_by_one(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """Credentials and configuration that do not work stop their account; an expired cursor starts a resync."""
    hostile_fleet.workers()
    deeds = ["credentials", "configuration", "expire_cursor", "sleep"]
    accounts = {deed: connect(deployment, Hostile, {"deeds": [deed]}) for deed in deeds}
    tick(deployment)
    live = [accounts["expire_cursor"], accounts["sleep"]]
    ended = "SELECT count(*) FROM sync_run WHERE user_integration_id = ANY(%s) AND state = 'succeeded'"
    hostile_fleet.until(lambda: deployment.value(ended, live) == 2, "the others go on")
    for stopped in ("credentials", "configuration"):
        expected = [("error", stopped)]
        hostile_fleet.until(
            lambda wanted=expected, one=accounts[stopped]: deployment.rows(STATUS, one) == wanted, stopped
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


def test_a_task_with_a_cost_that_cannot_begin(hostile_fleet: Fleet, deployment: Deployment) -> None:
    """Its budget is asked before it runs, and for that its account is opened: what fails there ends as in the task.

    Whether the keys of this process are wrong or the account's credentials cannot be known: the task waits, and says so.
    """
    hostile_fleet.workers()
    account = connect(deployment, Hostile, {"deeds": ["ask_for_budget"], "neighbours": 0}, Credentials(token=SECRET))
    sync(deployment, account)
    hostile_fleet.until(lambda: deployment.rows(FRUGAL) == [("done",)], "it is done while the account is well")
    oracle.wait_for_quiet(hostile_fleet)
    deployment.rows("UPDATE user_integration SET credentials = 'no key opens this', version = version + 1")
    task = deployment.value("UPDATE sync_task SET state = 'parked' WHERE type = 'frugal' RETURNING id")
    with deployment.connection() as connection:
        retry(connection, [task])  # a run of this task alone
    deployment.queues.wake()
    waits = "SELECT state, attempts, reason FROM sync_task WHERE retry_of IS NOT NULL AND snoozes = 1"
    hostile_fleet.until(lambda: deployment.rows(waits), "the task is put back")
    [(state, attempts, reason)] = deployment.rows(waits)
    assert (state, attempts) == ("ready", 0)
    assert "no key opens" in reason
    assert deployment.rows(STATUS, account) == [("active", None)]


FRUGAL = "SELECT state FROM sync_task WHERE type = 'frugal'"
