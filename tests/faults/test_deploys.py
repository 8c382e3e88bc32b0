"""Deploys in progress: workers run two versions of a plugin side by side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.rolling import VERSION, Rolling

PAGES = "SELECT count(*) FROM user_integration_content WHERE external_id LIKE 'page-%'"
APPENDICES = "SELECT count(*) FROM user_integration_content WHERE external_id LIKE 'appendix-%'"
WAITED = "SELECT count(*) FROM sync_task WHERE snoozes > 0"

OLD, NEW = {VERSION: "1"}, {VERSION: "2"}


@pytest.fixture
def rolling(make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet(POLLING_PLUGINS="support.rolling")


def test_a_newer_version_continues_the_tasks_of_the_older_one(
    rolling: Fleet, deployment: Deployment
) -> None:
    """A payload without the new parameter gets the parameter's default."""
    old = rolling.workers(processes=1, **OLD)
    account = connect(deployment, Rolling)
    sync(deployment, account)
    oracle.wait_for_progress(rolling, 10)
    rolling.workers(processes=1, **NEW)
    assert old.terminate() == 0
    oracle.wait_for_quiet(rolling, replace=False)
    [saved] = oracle.assert_runs(rolling, account, ["succeeded"])
    assert deployment.value(PAGES) == 60
    assert 0 < deployment.value(APPENDICES) == saved - 60


@pytest.mark.timeout(300)
def test_an_older_version_leaves_unknown_tasks_to_the_newer_one(
    rolling: Fleet, deployment: Deployment
) -> None:
    """The older version parks neither a task without a method nor a task with a new parameter.

    Every second page reaches the older version first. It waits some seconds before it is offered
    again.
    """
    rolling.workers(processes=1, threads=4, **OLD)
    rolling.ready()
    rolling.workers(processes=1, threads=4, **NEW)
    rolling.ready()
    account = connect(deployment, Rolling, {"pages": 12})
    sync(deployment, account)
    # Either version may have begun the run. The run contains tasks of the newer version long before
    # it ends.
    oracle.wait_for_progress(rolling, 1)
    deployment.rows(ADD_NEW)
    deployment.queues.wake()
    oracle.wait_for_quiet(rolling, 200, replace=False)
    assert deployment.value(WAITED), "the older version never received a task of the newer one"
    oracle.assert_runs(rolling, account, ["succeeded"])
    assert deployment.value(PAGES) == 12
    assert deployment.value(APPENDICES) >= 20


def test_a_task_that_no_version_knows_is_parked(rolling: Fleet, deployment: Deployment) -> None:
    rolling.workers(processes=1, **OLD)
    account = connect(deployment, Rolling)
    sync(deployment, account)
    oracle.wait_for_progress(rolling, 1)
    deployment.rows(ADD_NEW)
    deployment.queues.wake()
    oracle.wait_for_quiet(rolling, replace=False)
    oracle.assert_runs(rolling, account, ["partial"])
    oracle.assert_tasks(deployment, account, {"done": 61, "parked": 20})
    assert deployment.rows("SELECT DISTINCT reason FROM sync_task WHERE state = 'parked'") == [
        ("rolling has no task 'appendix'",)
    ]


ADD_NEW = """
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, parent_id, type,
    payload, dedup_key)
SELECT run_id, user_integration_id, integration_domain, lane, id, 'appendix',
    jsonb_build_object('number', 1000 + n),
    decode(md5(n::text), 'hex') FROM sync_task, generate_series(1, 20) n WHERE type = 'start'
"""
