"""Scheduling: one run for each due account, however many schedulers and ticks there are."""

from __future__ import annotations

from collections import Counter
from uuid import UUID, uuid4

import pytest

from core import Task
from core.errors import InvalidInput, NotFound
from core.ledger import scheduling
from core.ledger.opening import open_run


def due(desk, account: UUID) -> None:
    desk.conn.execute(
        "UPDATE user_integration SET next_sync_at = now() - interval '1 s' WHERE id = %s",
        (account,),
    )


def test_concurrent_schedulers_make_one_run_for_each_account(desk, connect, together) -> None:
    accounts = [desk.account(f"a{number}") for number in range(60)]
    conns = [connect() for _ in range(4)]
    made = together(*(lambda conn=conn: scheduling.poll(conn, 7) for conn in conns))
    assert sum(made) == 60
    runs = Counter(account for (account,) in desk.rows("SELECT user_integration_id FROM sync_run"))
    assert runs == Counter(accounts)
    assert (
        desk.value("SELECT count(*) FROM sync_task WHERE type = 'start' AND state = 'ready'") == 60
    )


def test_a_second_tick_makes_no_second_run(desk) -> None:
    account = desk.account()
    assert scheduling.poll(desk.conn, 10) == 1
    due(desk, account)
    assert scheduling.poll(desk.conn, 10) == 0
    assert desk.runs() == ["running"]


DUE_NOW = "SELECT count(*) FROM user_integration WHERE next_sync_at <= clock_timestamp()"


def test_a_due_account_with_an_open_run_leaves_the_due_ones(desk) -> None:
    """Each claim would read past all accounts that stay due."""
    joined, new = desk.account("joined"), desk.account("new")
    desk.run(joined)
    due(desk, joined)
    claim = scheduling.claim_due(desk.conn, 10)
    assert ([account for _, account in claim.runs], claim.joined) == ([new], 1)
    assert desk.value(DUE_NOW) == 0


def test_accounts_that_join_their_runs_count_for_the_batch(desk) -> None:
    """A claim that handled a full batch is followed by another one."""
    for number in range(3):
        desk.run(desk.account(f"a{number}"))
    desk.account("new")
    desk.conn.execute("UPDATE user_integration SET next_sync_at = now() - interval '1 h'")
    desk.conn.execute(
        "UPDATE user_integration SET next_sync_at = now() - interval '1 s' WHERE name = 'new'"
    )
    assert scheduling.poll(desk.conn, 1) == 1


def test_a_claim_ends_after_its_time_and_says_that_more_are_due(desk) -> None:
    for number in range(3):
        desk.account(f"a{number}")
    assert scheduling.poll_for(desk.conn, 1, 0.0) == (1, True)
    assert scheduling.poll_for(desk.conn, 5, 0.0) == (2, False)
    assert scheduling.poll_for(desk.conn, 5, 0.0) == (0, False)


def test_a_batch_has_the_given_size_and_takes_the_longest_due_first(desk) -> None:
    accounts = [desk.account(f"a{number}") for number in range(5)]
    for age, account in enumerate(accounts):
        desk.conn.execute(
            "UPDATE user_integration SET next_sync_at = now() - %s * interval '1 h' WHERE id = %s",
            (age, account),
        )
    assert {account for _, account in scheduling.claim_due(desk.conn, 2).runs} == set(accounts[-2:])
    assert scheduling.poll(desk.conn, 2) == 3


@pytest.mark.parametrize("status", ["paused", "error", "disconnected"])
def test_an_account_that_is_not_active_is_not_polled(desk, status: str) -> None:
    account = desk.account()
    desk.conn.execute(
        "UPDATE user_integration SET sync_status = %s WHERE id = %s", (status, account)
    )
    assert scheduling.poll(desk.conn, 10) == 0
    with pytest.raises(InvalidInput, match=status):
        desk.run(account)


def test_an_account_that_is_not_due_is_not_polled(desk) -> None:
    account = desk.account()
    desk.conn.execute(
        "UPDATE user_integration SET next_sync_at = now() + interval '1 min' WHERE id = %s",
        (account,),
    )
    assert scheduling.poll(desk.conn, 10) == 0


def test_a_request_joins_the_open_run(desk) -> None:
    account = desk.account()
    first, new = scheduling.request_run(desk.conn, account)
    assert new
    assert scheduling.request_run(desk.conn, account) == (first, False)
    assert desk.rows("SELECT complete, trigger FROM sync_run") == [(False, "manual")]


def test_concurrent_requests_share_one_run(desk, connect, together) -> None:
    account = desk.account()
    conns = [connect() for _ in range(6)]
    answers = together(
        *(lambda conn=conn: scheduling.request_run(conn, account) for conn in conns),
        lambda: scheduling.poll(desk.conn, 5),
    )
    assert len({run for run, _ in answers[:-1]}) == 1
    assert sum(new for _, new in answers[:-1]) + answers[-1] == 1
    assert desk.tasks() == {min(desk.tasks()): "ready"}


def test_an_unknown_account_is_not_found(desk) -> None:
    with pytest.raises(NotFound):
        desk.run(uuid4())


def test_the_next_run_is_due_an_interval_after_the_end(desk) -> None:
    account = desk.account(poll_interval_minutes=60)
    desk.finish(desk.root(account))
    assert desk.runs() == ["succeeded"]
    minutes = desk.value(
        "SELECT extract(epoch FROM next_sync_at - last_sync_at) / 60 FROM user_integration"
    )
    assert 57 <= minutes <= 63


@pytest.mark.parametrize("is_due", [True, False])
def test_a_poll_that_became_due_during_a_run_of_retries_starts_after_it(desk, is_due) -> None:
    account = desk.account()
    desk.finish(desk.root(account))
    planned = desk.value("SELECT next_sync_at FROM user_integration")
    with desk.conn.transaction():
        run = open_run(desk.conn, account, lane="live", trigger="retry")
        (retried,) = desk.add(run, "retried")
    if is_due:
        due(desk, account)
    assert scheduling.poll(desk.conn, 5) == 0
    (dispatch,) = desk.claim()
    assert dispatch.task_id == retried
    desk.finish(dispatch)
    assert desk.value(DUE_NOW) == is_due
    assert (desk.value("SELECT next_sync_at FROM user_integration") == planned) == (not is_due)


def test_a_poll_that_was_set_during_a_poll_starts_after_it(desk) -> None:
    account = desk.account()
    assert scheduling.poll(desk.conn, 5) == 1
    (dispatch,) = desk.claim()
    due(desk, account)
    assert scheduling.poll(desk.conn, 5) == 0
    desk.finish(dispatch)
    assert desk.value(DUE_NOW) == 1


def test_a_poll_that_is_longer_than_its_interval_is_followed_by_a_pause(desk) -> None:
    """The next poll became due during the run, because of the interval alone."""
    desk.account()
    assert scheduling.poll(desk.conn, 5) == 1
    (dispatch,) = desk.claim()
    desk.conn.execute(
        """WITH moved AS (UPDATE sync_run SET next_sync_at = now() - interval '1 s')
        UPDATE user_integration SET next_sync_at = now() - interval '1 s'"""
    )
    assert scheduling.poll(desk.conn, 5) == 0
    desk.conn.execute("UPDATE user_integration SET poll_interval_minutes = 60")
    desk.finish(dispatch)
    minutes = desk.value(
        "SELECT extract(epoch FROM next_sync_at - now()) / 60 FROM user_integration"
    )
    assert 56 <= minutes <= 64


# Resync
# --------------------------------------------------------------------------------------------------


def test_a_resync_drops_every_cursor_and_starts_immediately(desk) -> None:
    account = desk.account()
    desk.conn.execute(
        "INSERT INTO sync_state VALUES (%s, 'p', '1', 1, 1), (%s, 'q', '2', 1, 1)",
        (account, account),
    )
    run, new = scheduling.request_resync(desk.conn, account)
    assert new
    assert desk.rows("SELECT value FROM sync_state") == [(None,), (None,)]
    assert desk.rows("SELECT id, trigger FROM sync_run") == [(run, "resync")]


def test_a_resync_requested_during_a_run_begins_after_it(desk) -> None:
    account = desk.account()
    open_root = desk.root(account)
    assert scheduling.request_resync(desk.conn, account) == (UUID(open_root.run_id), False)
    assert scheduling.poll(desk.conn, 5) == 0
    desk.finish(open_root)
    assert scheduling.poll(desk.conn, 5) == 1
    assert desk.rows("SELECT trigger FROM sync_run ORDER BY started_at") == [
        ("manual",),
        ("resync",),
    ]
    assert desk.value("SELECT resync_due FROM user_integration") is False


def test_a_cursor_that_the_open_run_writes_is_not_used_by_the_resync(desk) -> None:
    from pydantic import BaseModel

    class Cursor(BaseModel):
        at: int = 7

    account = desk.account()
    root = desk.root(account)
    scheduling.request_resync(desk.conn, account)
    desk.save(desk.outcome(root, tasks=[Task("page")]))
    (page,) = desk.claim()
    desk.finish(page, state={"p": Cursor()})
    assert scheduling.poll(desk.conn, 5) == 1
    assert desk.rows("SELECT value FROM sync_state WHERE value IS NOT NULL") == []
