"""The invariants that must hold after every fault, in the ledger, the content and Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from uuid import UUID

from integration_polling_hello_world import Config, expected

from support.deployment import Deployment
from support.fleet import Fleet
from support.metered import CALLS, calls

LARGE = {"pages": 10, "items": 14, "fanout_depth": 1, "delay_ms": 10}
"""The config of a run with some 2,000 tasks, long enough for a fault in its middle."""

COSTLY = {"pages": 6, "items": 9, "fanout_depth": 1}
"""The config of a `Metered` run with some 550 calls.

Its budget makes the run long enough for a fault in its middle.
"""

LATE_SECONDS = 0.5
"""The maximum delay between taking units and the start of the call, on a busy machine."""

OPEN = "SELECT count(*) FROM sync_run WHERE state = 'running'"
DONE = "SELECT count(*) FROM sync_task WHERE state = 'done'"
CONVICTED = "SELECT id, type, crashes, attempts, reason FROM sync_task WHERE crashes > 0 LIMIT 5"
BY_STATE = "SELECT state, count(*) FROM sync_task WHERE user_integration_id = %s GROUP BY state"
TWICE = """
SELECT type, payload::text, outputs_saved, outputs_unchanged FROM sync_task
WHERE user_integration_id = %s AND outputs_unchanged > 0 LIMIT 5
"""
RUNS = """
SELECT r.id, r.state, r.finished_at < max(t.finished_at), r.tasks_done,
    count(*) FILTER (WHERE t.state = 'done'),
    r.outputs_saved
FROM sync_run r JOIN sync_task t ON t.run_id = r.id WHERE r.user_integration_id = %s GROUP BY r.id
"""
CONTENT = """
SELECT external_id, hash FROM user_integration_content
WHERE user_integration_id = %s AND deleted_at IS NULL
"""
REWRITTEN = """
SELECT external_id FROM user_integration_content
WHERE user_integration_id = %s AND updated_at <> created_at LIMIT 5
"""
LEFT = """
SELECT state, type, suspect, reason, errors::text, count(*) FROM sync_task
WHERE state IN ('ready', 'queued', 'parked')
GROUP BY 1, 2, 3, 4, 5 ORDER BY state = 'parked' LIMIT 20
"""


def hello_tasks(config: Mapping[str, int]) -> int:
    """Return the number of tasks of one Hello World run without permanent failures."""
    valid = Config.model_validate(config)
    levels = range(1, valid.fanout_depth + 2) if valid.fanout_depth else ()
    return (
        1
        + bool(valid.grow)
        + valid.pages
        + sum(valid.pages * valid.items**level for level in levels)
    )


def wait_for_progress(fleet: Fleet, tasks: int) -> None:
    """Wait until this number of tasks is done."""
    fleet.until(
        lambda: fleet.deployment.value(DONE) >= tasks, f"{tasks} tasks are done", replace=True
    )


def wait_for_quiet(fleet: Fleet, seconds: float = 40.0, *, replace: bool = True) -> None:
    """Wait until no run is open and the queues in Redis are empty."""
    deployment = fleet.deployment

    def quiet() -> bool:
        return not deployment.value(OPEN)

    try:
        fleet.until(quiet, "all runs end", seconds, replace=replace)
    except AssertionError as error:
        raise AssertionError(f"{error}; left: {deployment.rows(LEFT)}") from None
    fleet.until(lambda: not in_redis(deployment), "Redis is empty", 10.0, replace=replace)


def in_redis(deployment: Deployment) -> dict[str, int]:
    """Return the number of ids in the list and in the hash of each queue that is not empty."""
    client = deployment.queues.client
    found = {}
    for name in deployment.queue_names:
        key = deployment.queues.key(name)
        found |= {key: client.llen(key), f"{key}.msgs": client.hlen(f"{key}.msgs")}
    return {key: count for key, count in found.items() if count}


def assert_synced(fleet: Fleet, account: UUID, config: Mapping[str, int]) -> None:
    """Assert that one Hello World run had all its effects exactly once.

    The run must also have ended once, after its last task.
    """
    assert_content(fleet.deployment, account, expected(config))
    assert_tasks(fleet.deployment, account, {"done": hello_tasks(config)})
    [saved] = assert_runs(fleet, account, ["succeeded"])
    assert saved == len(expected(config)), f"the run counted {saved} outputs"
    assert_within_budget(fleet.deployment)


def assert_content(deployment: Deployment, account: UUID, wanted: Mapping[str, str]) -> None:
    """Assert that the content has exactly these ids and hashes, each written by one commit."""
    found = dict(deployment.rows(CONTENT, account))
    missing, surplus = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    assert not missing, f"{len(missing)} of {len(wanted)} items are missing: {sorted(missing)[:5]}"
    assert not surplus, f"{len(surplus)} items too many: {sorted(surplus)[:5]}"
    assert found == wanted, (
        f"different content in {[key for key in wanted if found[key] != wanted[key]][:5]}"
    )
    assert not (twice := deployment.rows(TWICE, account)), f"saved twice: {twice}"
    assert not (rewritten := deployment.rows(REWRITTEN, account)), f"written twice: {rewritten}"


def assert_tasks(deployment: Deployment, account: UUID, wanted: Mapping[str, int]) -> None:
    """Assert that the account has exactly these numbers of tasks by state."""
    found = dict(deployment.rows(BY_STATE, account))
    assert found == wanted, (
        f"tasks are {found} instead of {dict(wanted)}; left: {deployment.rows(LEFT)}"
    )


def assert_runs(fleet: Fleet, account: UUID, states: list[str]) -> list[int]:
    """Assert that the account's runs have these states, and ended once, after their last task.

    Returns:
      The number of saved outputs of each run.
    """
    runs = fleet.deployment.rows(RUNS, account)
    assert Counter(state for _, state, *_ in runs) == Counter(states)
    words = fleet.says()
    for run, _, early, counted, done, _ in runs:
        assert not early, f"run {run} ended before its last task"
        assert counted == done, f"run {run} counted {counted} tasks done, and there are {done}"
        assert (times := words.count(f"run {run} of account")) <= 1, (
            f"run {run} ended {times} times"
        )
    return [saved for *_, saved in runs]


def assert_within_budget(deployment: Deployment) -> None:
    """Assert that no account's calls exceeded its limit, in any window."""
    window = CALLS.per - LATE_SECONDS
    for account, moments in calls(deployment.home).items():
        for index, moment in enumerate(moments[CALLS.units :]):
            spread = moment - moments[index]
            assert spread >= window, (
                f"{CALLS.units + 1} calls of account {account} within {spread:.2f} s"
            )


def assert_nobody_convicted(deployment: Deployment) -> None:
    """Assert that no crash was counted against a task."""
    assert not (convicted := deployment.rows(CONVICTED)), f"crashes were counted: {convicted}"
