"""The tasks that an account owes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from core import Task
from core.ledger import carry_over, completion, controls
from core.ledger.dispatching import TaskPortion
from core.ledger.outcomes import Outcome
from core.service.accounts import queries as account_queries
from core.service.accounts.owed import Owed, completeness, owed_by


def stop(desk: Any, account: UUID, *states: str) -> list[int]:
    """End a run with one stopped task for each state. Return the tasks."""
    tasks = [Task("step", {"number": number}) for number, _ in enumerate(states)]
    desk.finish(desk.root(account), tasks=tasks)
    dispatches = [dispatch for dispatch in desk.claim() if dispatch.type == "step"]
    for dispatch, state in zip(dispatches, states, strict=True):
        desk.save(Outcome(dispatch, state=state, delay=60, attempt=1, reason="x", error="x"))
    completion.end_runs(desk.conn, {dispatches[0].run_id})
    return [dispatch.task_id for dispatch in dispatches]


def test_an_account_with_all_tasks_done_owes_nothing(desk) -> None:
    account = desk.account()
    desk.finish(desk.root(account), tasks=[Task("step")])
    assert owed_by(desk.conn, account) == Owed(0, None)


def test_deferred_and_parked_tasks_are_owed_since_their_first_failure(desk) -> None:
    account, other = desk.account("a"), desk.account("b")
    stop(desk, account, "deferred", "parked")
    stop(desk, other, "parked")
    desk.conn.execute(
        "UPDATE sync_task SET first_failed_at = now() - interval '1 day' WHERE state = 'deferred'"
    )
    owed = owed_by(desk.conn, account)
    first = desk.value("SELECT first_failed_at FROM sync_task WHERE state = 'deferred'")
    assert (owed.tasks, owed.since) == (2, first)
    assert owed_by(desk.conn, other).tasks == 1


def test_a_continued_task_is_owed_once_until_it_is_done(desk) -> None:
    account = desk.account()
    stop(desk, account, "deferred")
    since = owed_by(desk.conn, account).since
    desk.conn.execute("UPDATE sync_task SET available_at = now() WHERE state = 'deferred'")
    carry_over.continue_deferred(desk.conn, 10)
    assert owed_by(desk.conn, account) == Owed(1, since)
    (copy,) = desk.claim()
    assert owed_by(desk.conn, account) == Owed(1, since)
    desk.finish(copy)
    assert owed_by(desk.conn, account).tasks == 0


def test_a_retried_task_is_owed_since_the_failure_before_the_retries(desk) -> None:
    account = desk.account()
    (task,) = stop(desk, account, "parked")
    desk.conn.execute("UPDATE sync_task SET first_failed_at = now() - interval '3 days'")
    since = owed_by(desk.conn, account).since
    for _ in range(2):
        (task,) = controls.retry(desk.conn, [task])
        assert owed_by(desk.conn, account) == Owed(1, since)
        (copy,) = [each for each in desk.claim() if each.task_id == task]
        assert owed_by(desk.conn, account) == Owed(1, since)
        desk.save(Outcome(copy, state="parked", attempt=1, reason="x", error="x"))
        completion.end_runs(desk.conn, {copy.run_id})
        assert owed_by(desk.conn, account) == Owed(1, since)


def test_a_discarded_task_is_not_owed(desk) -> None:
    account = desk.account()
    controls.discard(desk.conn, stop(desk, account, "parked"))
    assert owed_by(desk.conn, account).tasks == 0


def test_the_open_tasks_of_a_cancelled_run_are_owed(desk) -> None:
    account = desk.account()
    root = desk.root(account)
    desk.finish(root, tasks=[Task("step", {"number": number}) for number in range(3)])
    controls.cancel_run(desk.conn, UUID(root.run_id))
    assert owed_by(desk.conn, account).tasks == 3


def test_a_task_that_is_parked_in_two_runs_is_owed_once(desk) -> None:
    account = desk.account()
    stop(desk, account, "parked")
    stop(desk, account, "parked")
    assert desk.value("SELECT count(*) FROM sync_task WHERE state = 'parked'") == 2
    assert owed_by(desk.conn, account).tasks == 1


STARTED = "SELECT started_at FROM sync_run WHERE id = %s"


def test_an_account_without_an_ended_run_is_complete_as_of_no_time(desk) -> None:
    account = desk.account()
    desk.root(account)
    assert owed_by(desk.conn, account).complete_as_of is None


def test_an_account_is_complete_as_of_the_start_of_its_last_listing(desk) -> None:
    account, other = desk.account("a"), desk.account("b")
    stop(desk, other, "parked")
    for _ in range(2):
        root = desk.root(account)
        desk.finish(root)
        completion.end_runs(desk.conn, {root.run_id})
    started = desk.value(STARTED, root.run_id)
    assert owed_by(desk.conn, account).complete_as_of == started
    desk.root(account)
    assert owed_by(desk.conn, account).complete_as_of == started


def test_an_incomplete_account_is_complete_again_as_of_its_listing_and_not_of_the_retry(
    desk,
) -> None:
    account = desk.account()
    stop(desk, account, "deferred")
    listing = desk.value("SELECT started_at FROM sync_run")
    assert owed_by(desk.conn, account).complete_as_of is None
    desk.conn.execute("UPDATE sync_task SET available_at = now() WHERE state = 'deferred'")
    carry_over.continue_deferred(desk.conn, 10)
    (copy,) = desk.claim()
    assert owed_by(desk.conn, account).complete_as_of is None
    desk.finish(copy)
    assert desk.rows("SELECT trigger FROM sync_run ORDER BY started_at")[-1] == ("retry",)
    assert owed_by(desk.conn, account).complete_as_of == listing


def test_an_account_with_an_open_backfill_is_not_complete(desk) -> None:
    account = desk.account()
    root = desk.root(account)
    desk.finish(root, tasks=[Task("step", background=True)])
    completion.end_runs(desk.conn, {root.run_id})
    assert desk.rows("SELECT lane FROM sync_run WHERE state = 'running'") == [("backfill",)]
    assert owed_by(desk.conn, account) == Owed(0, None, None)
    (history,) = desk.claim(TaskPortion(str(account), "backfill", 9))
    desk.finish(history)
    completion.end_runs(desk.conn, {history.run_id})
    assert owed_by(desk.conn, account).complete_as_of == desk.value(STARTED, root.run_id)


def test_during_a_later_backfill_an_account_is_complete_as_of_the_run_before_it(desk) -> None:
    """A comparison with the source is a backfill of a complete account."""
    account, runs = desk.account(), list[Any]()
    for background in (False, True, False):
        runs.append(desk.root(account))
        desk.finish(runs[-1], tasks=[Task("step", background=True)] if background else [])
        completion.end_runs(desk.conn, {runs[-1].run_id})
    started = [desk.value(STARTED, root.run_id) for root in runs]
    assert owed_by(desk.conn, account).complete_as_of == started[0]
    (compared,) = desk.claim(TaskPortion(str(account), "backfill", 9))
    desk.finish(compared)
    completion.end_runs(desk.conn, {compared.run_id})
    assert owed_by(desk.conn, account).complete_as_of == started[2]


def test_a_listing_shows_the_owed_tasks_of_each_account(desk) -> None:
    owing, complete, new = desk.account("a"), desk.account("b"), desk.account("c")
    stop(desk, owing, "deferred", "parked")
    root = desk.root(complete)
    desk.finish(root)
    completion.end_runs(desk.conn, {root.run_id})
    rows = {row["id"]: row for row in account_queries.listed_accounts.page(desk.conn).rows}
    assert completeness(rows[owing]) == "2 tasks not done"
    assert rows[complete]["complete_as_of"] == desk.value(STARTED, root.run_id)
    assert (rows[new]["owed_tasks"], rows[new]["complete_as_of"]) == (0, None)
    for account in rows:
        owed = owed_by(desk.conn, account)
        seen = (rows[account]["owed_tasks"], rows[account]["complete_as_of"])
        assert seen == (owed.tasks, owed.complete_as_of)


@pytest.mark.parametrize("state", ["parked", "deferred"])
def test_a_run_whose_root_task_was_discarded_listed_nothing(desk, state: str) -> None:
    account = desk.account()
    root = desk.root(account)
    desk.save(Outcome(root, state=state, delay=60, attempt=1, reason="x", error="x"))
    completion.end_runs(desk.conn, {root.run_id})
    desk.conn.execute("UPDATE sync_task SET state = 'done'")
    assert owed_by(desk.conn, account) == Owed(0, None, None)
