"""Leases: a worker keeps its tasks, an expired lease makes a suspect, three deaths convict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.ledger import completion, leases


def expire(desk, *dispatches) -> list:
    ids = [dispatch.task_id for dispatch in dispatches]
    desk.conn.execute(
        "UPDATE sync_task SET lease_until = clock_timestamp() - interval '1 s' WHERE id = ANY(%s)",
        (ids,),
    )
    return leases.expire(desk.conn)


def seconds_left(desk) -> float:
    return float(
        desk.value("SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM sync_task")
    )


def test_a_renewed_lease_starts_now(desk) -> None:
    dispatch = desk.root(desk.account())
    leases.renew(desk.conn, [dispatch.lease], 500)
    assert 490 < seconds_left(desk) <= 500


def test_only_the_current_dispatch_of_a_queued_task_is_renewed(desk) -> None:
    dispatch = desk.root(desk.account())
    leases.renew(desk.conn, [(dispatch.task_id, 2, dispatch.token)], 500)
    assert seconds_left(desk) < 61
    expire(desk, dispatch)
    leases.renew(desk.conn, [dispatch.lease], 500)
    assert desk.rows("SELECT state, lease_until FROM sync_task") == [("ready", None)]


def test_renewal_and_sweeper_skip_rows_that_a_saver_has_locked(desk, connect) -> None:
    dispatch = desk.root(desk.account())
    saver = connect()
    desk.conn.execute("SET statement_timeout = '5s'")
    desk.conn.execute("UPDATE sync_task SET lease_until = clock_timestamp() - interval '1 s'")
    with saver.transaction():
        saver.execute("SELECT FROM sync_task FOR UPDATE")
        leases.renew(desk.conn, [dispatch.lease], 500)
        assert leases.expire(desk.conn) == []
    assert seconds_left(desk) < 0


def test_a_waiting_message_is_renewed_only_when_part_of_its_lease_is_used(desk) -> None:
    dispatch = desk.root(desk.account())
    before = desk.value("SELECT xmin::text FROM sync_task")
    leases.renew_waiting(desk.conn, [dispatch.lease], 60)
    assert desk.value("SELECT xmin::text FROM sync_task") == before
    desk.conn.execute("UPDATE sync_task SET lease_until = clock_timestamp() + interval '5 s'")
    leases.renew_waiting(desk.conn, [dispatch.lease], 60)
    assert seconds_left(desk) > 55


def test_an_expired_lease_makes_a_suspect_and_counts_nothing(desk) -> None:
    dispatch = desk.root(desk.account())
    assert leases.expire(desk.conn) == []
    (expired,) = expire(desk, dispatch)
    assert (expired.task_id, expired.dispatch_no, expired.state, expired.domain) == (
        dispatch.task_id,
        1,
        "ready",
        "shop",
    )
    (again,) = desk.claim()
    assert (again.dispatch_no, again.suspect, again.crashes, again.attempts) == (2, True, 0, 0)
    assert leases.expire(desk.conn) == []


def test_a_suspect_that_never_began_is_not_convicted(desk) -> None:
    dispatch = desk.root(desk.account())
    for _ in range(5):
        expire(desk, dispatch)
        (dispatch,) = desk.claim()
    assert desk.rows("SELECT state, crashes FROM sync_task") == [("queued", 0)]


def test_the_third_death_of_a_started_suspect_parks_it(desk) -> None:
    dispatch = desk.root(desk.account())
    expire(desk, dispatch)
    states = []
    for _ in range(3):
        (dispatch,) = desk.claim()
        assert leases.start_suspect(desk.conn, dispatch.lease)
        states += [
            (one.state, desk.value("SELECT crashes FROM sync_task"))
            for one in expire(desk, dispatch)
        ]
    assert states == [("ready", 1), ("ready", 2), ("parked", 3)]
    assert [run["state"] for run in completion.end_runs(desk.conn, {dispatch.run_id})] == ["failed"]
    assert desk.value("SELECT finished_at IS NOT NULL AND reason IS NOT NULL FROM sync_task")


def test_a_suspect_of_an_outdated_dispatch_does_not_start(desk) -> None:
    dispatch = desk.root(desk.account())
    assert not leases.start_suspect(desk.conn, replace(dispatch, dispatch_no=2).lease)
    desk.finish(dispatch)
    assert not leases.start_suspect(desk.conn, dispatch.lease)


def test_the_result_of_a_zombie_is_refused_after_a_new_dispatch(desk) -> None:
    from core import TaskOutput

    zombie = desk.root(desk.account())
    expire(desk, zombie)
    assert desk.save(desk.outcome(zombie, output=[TaskOutput("a")])).applied == []
    (again,) = desk.claim()
    assert desk.save(desk.outcome(zombie, output=[TaskOutput("a")])).applied == []
    assert len(desk.save(desk.outcome(again)).applied) == 1
    assert desk.content() == {}


@pytest.mark.parametrize("suspect", [False, True])
def test_a_task_that_a_worker_returns_is_ready_and_no_new_suspect(desk, suspect: bool) -> None:
    dispatch = desk.root(desk.account())
    if suspect:
        expire(desk, dispatch)
        (dispatch,) = desk.claim()
    strays = [(dispatch.task_id, 99, dispatch.token), (99, 1, dispatch.token)]
    leases.release(desk.conn, [dispatch.lease, *strays])
    assert desk.rows("SELECT state, suspect, crashes, lease_until FROM sync_task") == [
        ("ready", suspect, 0, None)
    ]
    (again,) = desk.claim()
    assert again.dispatch_no == dispatch.dispatch_no + 1


def test_a_suspect_that_only_waited_is_not_parked_after_two_deaths(desk) -> None:
    dispatch = desk.root(desk.account())
    desk.conn.execute("UPDATE sync_task SET suspect = true, crashes = 2")
    assert [one.state for one in expire(desk, dispatch)] == ["ready"]


# Dispatches of a lost time line
# --------------------------------------------------------------------------------------------------


def lost(dispatch):
    """Return a dispatch with the same numbers, of transactions that the database has lost."""
    return replace(dispatch, token=dispatch.token ^ 1)


def test_a_lease_of_a_lost_time_line_is_neither_renewed_nor_returned(desk) -> None:
    dispatch = desk.root(desk.account())
    stranger = lost(dispatch).lease
    leases.renew(desk.conn, [stranger], 500)
    assert seconds_left(desk) < 61
    leases.release(desk.conn, [stranger])
    assert not leases.start_suspect(desk.conn, stranger)
    assert desk.rows("SELECT state, started_at FROM sync_task") == [("queued", None)]


def test_a_message_without_a_token_is_renewed_started_and_returned(desk) -> None:
    """A leader of a version without tokens sent it."""
    dispatch = replace(desk.root(desk.account()), token=None)
    leases.renew(desk.conn, [dispatch.lease], 500)
    assert seconds_left(desk) > 490
    assert leases.start_suspect(desk.conn, dispatch.lease)
    leases.release(desk.conn, [dispatch.lease])
    assert desk.value("SELECT state FROM sync_task") == "ready"
