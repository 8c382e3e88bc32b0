"""Deferred tasks: closed for their run, and continued as copies until they succeed."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from core import Task
from core.accounts import store
from core.ledger import carry_over, completion, controls, scheduling
from core.ledger.outcomes import Dispatch, Outcome

DUE = "UPDATE sync_task SET available_at = now() - interval '1 s' WHERE state = 'deferred'"
STEPS = """
SELECT id, run_id, state, retried_as, retry_of, deferrals, attempts FROM sync_task
WHERE type = 'step' ORDER BY id
"""


def defer(desk: Any, dispatch: Dispatch, seconds: float = 60) -> None:
    outcome = Outcome(
        dispatch, state="deferred", delay=seconds, attempt=1, reason="deferred: down", error="down"
    )
    desk.save(outcome)
    completion.end_runs(desk.conn, {dispatch.run_id})


def one_deferred(desk: Any, account: UUID, *, background: bool = False) -> Dispatch:
    """Return a deferred task of a run that has ended."""
    desk.finish(desk.root(account), tasks=[Task("step", {"number": 1}, background=background)])
    (dispatch,) = [each for each in desk.claim() if each.type == "step"]
    defer(desk, dispatch)
    return dispatch


def test_a_deferred_task_closes_its_run_as_partial(desk) -> None:
    one_deferred(desk, desk.account())
    assert desk.rows("SELECT state, tasks_deferred, tasks_parked, error FROM sync_run") == [
        ("partial", 1, 0, "deferred: down")
    ]
    ((wait, first),) = desk.rows(
        "SELECT extract(epoch FROM available_at - now())::float, first_failed_at FROM sync_task"
        " WHERE state = 'deferred'"
    )
    assert 50 < wait <= 60
    assert first is not None


def test_a_run_whose_root_is_deferred_is_partial_and_counts_as_no_failure(desk) -> None:
    defer(desk, desk.root(desk.account()))
    assert desk.runs() == ["partial"]
    assert desk.value("SELECT consecutive_failures FROM user_integration") == 0


def test_a_due_task_is_continued_in_a_run_opened_for_it(desk) -> None:
    account = desk.account()
    original = one_deferred(desk, account)
    next_sync = desk.value("SELECT next_sync_at FROM user_integration")
    assert carry_over.continue_deferred(desk.conn, 10) == 0
    desk.conn.execute(DUE)
    assert carry_over.continue_deferred(desk.conn, 10) == 1
    assert desk.runs() == ["partial", "running"]
    (dispatch,) = desk.claim()
    assert (dispatch.trigger, dispatch.deferrals, dispatch.attempts) == ("retry", 1, 0)
    assert dispatch.failing_seconds > 0
    assert desk.value("SELECT retried_as FROM sync_task WHERE id = %s", original.task_id) == (
        dispatch.task_id
    )
    desk.finish(dispatch)
    assert desk.runs() == ["partial", "succeeded"]
    assert desk.value("SELECT next_sync_at FROM user_integration") == next_sync
    assert carry_over.continue_deferred(desk.conn, 10) == 0


def test_a_due_task_is_continued_in_the_open_run_even_if_that_is_its_own(desk) -> None:
    account = desk.account()
    tasks = [Task("step", {"number": 1}), Task("page")]
    desk.finish(desk.root(account), tasks=tasks)
    step, page = sorted(desk.claim(), key=lambda dispatch: dispatch.type, reverse=True)
    defer(desk, step)
    desk.conn.execute(DUE)
    carry_over.continue_deferred(desk.conn, 10)
    assert desk.runs() == ["running"]
    (copy,) = desk.claim()
    desk.finish(copy)
    assert desk.runs() == ["running"]
    desk.finish(page)
    assert desk.rows("SELECT state, tasks_deferred, tasks_done FROM sync_run") == [
        ("succeeded", 0, 3)
    ]


def test_the_next_poll_continues_due_tasks_and_leaves_the_others(desk) -> None:
    account = desk.account()
    original = one_deferred(desk, account)
    desk.conn.execute("UPDATE user_integration SET next_sync_at = now()")
    scheduling.poll(desk.conn, 10)
    assert [dispatch.type for dispatch in desk.claim()] == ["start"]
    desk.conn.execute("UPDATE sync_task SET state = 'done' WHERE state = 'queued'")
    completion.end_forgotten_runs(desk.conn)
    desk.conn.execute(DUE)
    desk.conn.execute("UPDATE user_integration SET next_sync_at = now()")
    scheduling.poll(desk.conn, 10)
    (step,) = [dispatch for dispatch in desk.claim() if dispatch.type == "step"]
    assert desk.value("SELECT retry_of FROM sync_task WHERE id = %s", step.task_id) == (
        original.task_id
    )


def test_a_requested_run_continues_every_deferred_task_immediately(desk) -> None:
    account = desk.account()
    one_deferred(desk, account)
    desk.run(account)
    assert sorted(dispatch.type for dispatch in desk.claim()) == ["start", "step"]


def test_a_deferred_root_makes_its_account_due(desk) -> None:
    account = desk.account()
    defer(desk, desk.root(account))
    desk.conn.execute(DUE)
    assert scheduling.poll(desk.conn, 10) == 0
    carry_over.continue_deferred(desk.conn, 10)
    assert desk.runs() == ["partial"]
    assert scheduling.poll(desk.conn, 10) == 1
    (root,) = desk.claim()
    assert desk.value("SELECT retried_as FROM sync_task WHERE state = 'deferred'") == root.task_id


def test_a_deferred_backfill_task_is_continued_in_the_backfill(desk) -> None:
    account = desk.account()
    one_deferred(desk, account, background=True)
    desk.conn.execute(DUE)
    carry_over.continue_deferred(desk.conn, 10)
    assert desk.rows("SELECT lane, trigger FROM sync_run WHERE state = 'running'") == [
        ("backfill", "retry")
    ]


@pytest.mark.parametrize("status", ["paused", "error", "disconnected"])
def test_tasks_of_an_account_that_is_not_active_are_postponed(desk, status: str) -> None:
    account = desk.account()
    one_deferred(desk, account)
    desk.conn.execute(DUE)
    desk.conn.execute("UPDATE user_integration SET sync_status = %s", (status,))
    assert carry_over.continue_deferred(desk.conn, 10) == 1
    assert carry_over.continue_deferred(desk.conn, 10) == 0
    assert desk.runs() == ["partial"]
    desk.conn.execute("UPDATE user_integration SET sync_status = 'active'")
    desk.run(account)
    assert sorted(dispatch.type for dispatch in desk.claim()) == ["start", "step"]


def test_the_first_poll_after_a_resume_continues_postponed_tasks(desk) -> None:
    account = desk.account()
    one_deferred(desk, account)
    desk.conn.execute(DUE)
    desk.conn.execute(store.PAUSE, (account,))
    assert carry_over.continue_deferred(desk.conn, 10) == 1
    desk.conn.execute(store.RESUME, (account,))
    assert carry_over.continue_deferred(desk.conn, 10) == 0
    assert scheduling.poll(desk.conn, 10) == 1
    assert sorted(dispatch.type for dispatch in desk.claim()) == ["start", "step"]


def test_a_full_batch_is_reported_so_that_the_leader_continues(desk) -> None:
    account = desk.account()
    tasks = [Task("step", {"number": number}) for number in range(5)]
    desk.finish(desk.root(account), tasks=tasks)
    for dispatch in desk.claim():
        defer(desk, dispatch)
    desk.conn.execute(DUE)
    assert [carry_over.continue_deferred(desk.conn, 3) for _ in range(3)] == [3, 2, 0]
    assert len(desk.claim()) == 5


def test_a_due_task_does_not_wait_behind_cancelled_ones(desk) -> None:
    account = desk.account()
    original = one_deferred(desk, account)
    desk.conn.execute(CANCELLED, ("cancelled", 1_000))
    desk.conn.execute("UPDATE sync_task SET available_at = now() - interval '1 h'"
                      " WHERE state = 'cancelled'")  # fmt: skip
    desk.conn.execute(DUE)
    assert carry_over.continue_deferred(desk.conn, 100) == 1
    assert [dispatch.type for dispatch in desk.claim()] == ["step"]
    assert desk.value("SELECT retried_as IS NOT NULL FROM sync_task WHERE id = %s",
                      original.task_id)  # fmt: skip


def test_two_leaders_continue_a_task_once(desk, connect, together) -> None:
    for number in range(20):
        one_deferred(desk, desk.account(f"a{number}"))
    desk.conn.execute(DUE)
    conns = [connect() for _ in range(4)]
    together(*(lambda conn=conn: carry_over.continue_deferred(conn, 100) for conn in conns))
    carry_over.continue_deferred(desk.conn, 100)
    assert desk.value("SELECT count(*) FROM sync_task WHERE retry_of IS NOT NULL") == 20
    assert desk.value("SELECT count(DISTINCT retry_of) FROM sync_task") == 20


def test_a_task_of_one_key_is_continued_once(desk) -> None:
    account = desk.account()
    one_deferred(desk, account)
    desk.finish(desk.root(account), tasks=[Task("step", {"number": 1})])
    steps = [dispatch for dispatch in desk.claim() if dispatch.type == "step"]
    assert len(steps) == 1
    for dispatch in steps:
        desk.finish(dispatch)
    assert desk.value("SELECT count(*) FROM sync_task WHERE state = 'deferred'") == 1
    assert desk.value("SELECT count(*) FROM sync_task WHERE retried_as IS NULL"
                      " AND state = 'deferred'") == 0  # fmt: skip


def test_waiting_for_a_key_does_not_count_towards_giving_up(desk) -> None:
    """The task of an account that no key opens is snoozed, and may wait for days."""
    one_deferred(desk, desk.account())
    first = desk.value("SELECT first_failed_at FROM sync_task WHERE state = 'deferred'")
    desk.conn.execute(DUE)
    carry_over.continue_deferred(desk.conn, 10)
    for waits in (1, 2):
        desk.conn.execute("UPDATE sync_task SET available_at = now() WHERE state = 'ready'")
        (dispatch,) = desk.claim()
        desk.save(Outcome(dispatch, state="ready", delay=60.0, snooze=1, reason="no key"))
        ((attempts, moved),) = desk.rows(
            "SELECT attempts, first_failed_at FROM sync_task WHERE state = 'ready'"
        )
        assert (attempts, moved - first) == (0, timedelta(minutes=waits))


def test_pauses_count_over_all_copies_and_a_person_starts_anew(desk) -> None:
    account = desk.account()
    one_deferred(desk, account)
    first = desk.value("SELECT first_failed_at FROM sync_task WHERE state = 'deferred'")
    for deferrals in (2, 3):
        desk.conn.execute(DUE + " AND retried_as IS NULL")
        carry_over.continue_deferred(desk.conn, 10)
        (dispatch,) = desk.claim()
        defer(desk, dispatch)
        assert desk.rows(STEPS)[-1][5] == deferrals
    assert {row[0] for row in desk.rows("SELECT first_failed_at FROM sync_task WHERE type = 'step'")
            } == {first}  # fmt: skip
    desk.conn.execute("UPDATE sync_task SET state = 'parked' WHERE id = %s", (dispatch.task_id,))
    (copy,) = controls.retry(desk.conn, [dispatch.task_id])
    assert desk.rows("SELECT deferrals, first_failed_at FROM sync_task WHERE id = %s", copy) == [
        (0, None)
    ]


def test_a_person_retries_and_discards_deferred_tasks(desk) -> None:
    first = one_deferred(desk, desk.account("a"))
    second = one_deferred(desk, desk.account("b"))
    assert len(controls.retry(desk.conn, [first.task_id])) == 1
    assert controls.discard(desk.conn, [second.task_id]) == [second.task_id]
    desk.conn.execute(DUE)
    assert carry_over.continue_deferred(desk.conn, 10) == 0


# Portions
# --------------------------------------------------------------------------------------------------

CANCELLED = """
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key, state, finished_at)
SELECT id, user_integration_id, integration_domain, lane, 'step', jsonb_build_object('number', n),
    decode(md5(n::text), 'hex'), %s, now()
FROM sync_run, generate_series(1, %s) n
"""
COPIES = "SELECT count(*) FROM sync_task WHERE retry_of IS NOT NULL"


def stopped(desk: Any, count: int, state: str = "cancelled", name: str = "a") -> UUID:
    """Return an account that is due, with this number of stopped tasks of a run that has ended."""
    account: UUID = desk.account(name)
    desk.finish(desk.root(account))
    desk.conn.execute(CANCELLED, (state, count))
    desk.conn.execute("UPDATE user_integration SET next_sync_at = now()")
    return account


def test_the_scheduler_moves_few_tasks_and_the_leader_the_rest_in_portions(desk) -> None:
    stopped(desk, 1_300)
    assert scheduling.poll(desk.conn, 10) == 1
    counts = [desk.value(COPIES)]
    while carry_over.carry_on(desk.conn, 0.001):
        counts.append(desk.value(COPIES))
    assert counts == [100, 600, 1_100]
    assert desk.value(COPIES) == 1_300
    assert desk.value("SELECT count(DISTINCT retry_of) FROM sync_task") == 1_300
    assert not carry_over.carry_on(desk.conn, 1.0)


def test_a_run_does_not_end_before_it_has_taken_over_all_tasks(desk) -> None:
    stopped(desk, 300)
    scheduling.poll(desk.conn, 10)
    done = "UPDATE sync_task SET state = 'done', finished_at = now() WHERE state = 'ready'"
    desk.conn.execute(done)
    assert not completion.end_forgotten_runs(desk.conn)[0]
    carry_over.carry_on(desk.conn, 1.0)
    desk.conn.execute(done)
    assert len(completion.end_forgotten_runs(desk.conn)[0]) == 1
    assert desk.value(COPIES) == 300


def test_a_portion_that_is_interrupted_moves_nothing_and_the_next_leader_resumes(
    desk, connect, monkeypatch
) -> None:
    stopped(desk, 300)
    scheduling.poll(desk.conn, 10)

    def die(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(carry_over, "copy_tasks", die)
        with pytest.raises(KeyboardInterrupt):
            carry_over.carry_on(desk.conn, 1.0)
    assert desk.value(COPIES) == 100
    carry_over.carry_on(connect(), 1.0)
    assert desk.value(COPIES) == 300


def test_between_two_portions_and_in_one_other_accounts_have_their_turn(
    desk, connect, monkeypatch
) -> None:
    stopped(desk, 300)
    scheduling.poll(desk.conn, 10)
    desk.conn.execute("DELETE FROM sync_task WHERE state = 'ready'")
    started: list[str] = []
    copy = carry_over.copy_tasks

    def copying(*arguments: Any, **more: Any) -> list[int]:
        other = desk.root(desk.account("other"))
        started.append(other.type)
        desk.finish(other)
        return copy(*arguments, **more)

    monkeypatch.setattr(carry_over, "copy_tasks", copying)
    leader = connect()
    leader.execute("SET statement_timeout = '20s'")
    desk.conn.execute("SET lock_timeout = '5s'")
    carry_over.carry_on(leader, 1.0)
    assert started == ["start"]
    assert desk.value("SELECT count(*) FROM sync_run WHERE state = 'succeeded'") == 2


def test_two_leaders_move_each_task_once(desk, connect, together) -> None:
    stopped(desk, 2_000)
    scheduling.poll(desk.conn, 10)
    conns = [connect() for _ in range(4)]
    together(*(lambda conn=conn: carry_over.carry_on(conn, 5.0) for conn in conns))
    while carry_over.carry_on(desk.conn, 5.0):
        pass
    assert desk.value(COPIES) == desk.value("SELECT count(DISTINCT retry_of) FROM sync_task")
    assert desk.value(COPIES) == 2_000


def test_a_cancelled_run_leaves_the_rest_to_the_next_one(desk) -> None:
    account = stopped(desk, 300)
    scheduling.poll(desk.conn, 10)
    controls.cancel_run(desk.conn, desk.value("SELECT id FROM sync_run WHERE state = 'running'"))
    assert not carry_over.carry_on(desk.conn, 1.0)
    desk.run(account)
    while carry_over.carry_on(desk.conn, 1.0):
        pass
    done = "SELECT count(*) FROM sync_task WHERE type = 'step' AND state = 'ready'"
    assert desk.value(done) == 300


def test_a_person_who_syncs_continues_all_deferred_tasks_in_portions(desk) -> None:
    account = stopped(desk, 300, "deferred")
    desk.conn.execute(
        "UPDATE sync_task SET available_at = now() + interval '1 h' WHERE state = 'deferred'"
    )
    desk.run(account)
    carry_over.carry_on(desk.conn, 1.0)
    assert desk.value(COPIES) == 300


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("state", ["cancelled", "deferred", "parked"])
def test_200_000_stopped_tasks_hold_up_nobody(desk, connect, state: str) -> None:
    """The last portion costs what the first did, although an open transaction keeps dead rows."""
    reader = connect()
    stopped(desk, 200_000, state)
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    reader.execute("SELECT 1")
    began = time.monotonic()
    scheduling.poll(desk.conn, 10)
    assert time.monotonic() - began < 1.0
    seconds, more = [], True
    while more:
        began = time.monotonic()
        more = carry_over.carry_on(desk.conn, 0.001)
        seconds.append(time.monotonic() - began)
    assert desk.value(COPIES) == (0 if state == "parked" else 200_000)
    first, last = sorted(seconds[:50])[25:26] or [1.0], sorted(seconds[-50:])[25:26] or [0.0]
    print(f"{len(seconds)} portions, longest {max(seconds):.3f} s, {first}, {last}")
    assert max(seconds) < 1.0
    assert last[0] < 3 * first[0]
