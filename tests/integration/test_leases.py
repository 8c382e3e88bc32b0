"""Leases: who holds a task keeps it, who lost it is no culprit yet, and three deaths are."""

from __future__ import annotations

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


def test_a_renewed_lease_lasts_from_now(desk) -> None:
    dispatch = desk.root(desk.account())
    leases.renew(desk.conn, [(dispatch.task_id, 1)], 500)
    assert 490 < seconds_left(desk) <= 500


def test_another_dispatch_or_a_task_that_is_not_queued_is_not_renewed(desk) -> None:
    dispatch = desk.root(desk.account())
    leases.renew(desk.conn, [(dispatch.task_id, 2)], 500)
    assert seconds_left(desk) < 61
    expire(desk, dispatch)
    leases.renew(desk.conn, [(dispatch.task_id, 1)], 500)
    assert desk.rows("SELECT state, lease_until FROM sync_task") == [("ready", None)]


def test_renewal_and_sweeper_skip_rows_that_a_saver_holds(desk, connect) -> None:
    dispatch = desk.root(desk.account())
    saver = connect()
    desk.conn.execute("SET statement_timeout = '5s'")
    desk.conn.execute("UPDATE sync_task SET lease_until = clock_timestamp() - interval '1 s'")
    with saver.transaction():
        saver.execute("SELECT FROM sync_task FOR UPDATE")
        leases.renew(desk.conn, [(dispatch.task_id, 1)], 500)
        assert leases.expire(desk.conn) == []
    assert seconds_left(desk) < 0


def test_what_waits_in_redis_is_renewed_only_when_some_of_its_lease_is_used(desk) -> None:
    dispatch = desk.root(desk.account())
    before = desk.value("SELECT xmin::text FROM sync_task")
    leases.renew_waiting(desk.conn, [(dispatch.task_id, 1)], 60)
    assert desk.value("SELECT xmin::text FROM sync_task") == before
    desk.conn.execute("UPDATE sync_task SET lease_until = clock_timestamp() + interval '5 s'")
    leases.renew_waiting(desk.conn, [(dispatch.task_id, 1)], 60)
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


def test_the_third_death_of_a_suspect_that_had_begun_parks_it(desk) -> None:
    dispatch = desk.root(desk.account())
    expire(desk, dispatch)
    states = []
    for _ in range(3):
        (dispatch,) = desk.claim()
        assert leases.start_suspect(desk.conn, dispatch.task_id, dispatch.dispatch_no)
        states += [
            (one.state, desk.value("SELECT crashes FROM sync_task"))
            for one in expire(desk, dispatch)
        ]
    assert states == [("ready", 1), ("ready", 2), ("parked", 3)]
    assert [run["state"] for run in completion.end_runs(desk.conn, {dispatch.run_id})] == ["failed"]
    assert desk.value("SELECT finished_at IS NOT NULL AND reason IS NOT NULL FROM sync_task")


def test_a_suspect_whose_dispatch_is_void_does_not_start(desk) -> None:
    dispatch = desk.root(desk.account())
    assert not leases.start_suspect(desk.conn, dispatch.task_id, dispatch.dispatch_no + 1)
    desk.finish(dispatch)
    assert not leases.start_suspect(desk.conn, dispatch.task_id, dispatch.dispatch_no)


def test_the_zombies_result_is_refused_once_its_task_was_dispatched_again(desk) -> None:
    from core import TaskOutput

    zombie = desk.root(desk.account())
    expire(desk, zombie)
    assert desk.save(desk.outcome(zombie, output=[TaskOutput("a")])).applied == []
    (again,) = desk.claim()
    assert desk.save(desk.outcome(zombie, output=[TaskOutput("a")])).applied == []
    assert len(desk.save(desk.outcome(again)).applied) == 1
    assert desk.content() == {}


@pytest.mark.parametrize("suspect", [False, True])
def test_what_a_worker_gives_back_is_ready_and_not_suspected_for_it(desk, suspect: bool) -> None:
    dispatch = desk.root(desk.account())
    if suspect:
        expire(desk, dispatch)
        (dispatch,) = desk.claim()
    leases.release(
        desk.conn, [(dispatch.task_id, dispatch.dispatch_no), (dispatch.task_id, 99), (99, 1)]
    )
    assert desk.rows("SELECT state, suspect, crashes, lease_until FROM sync_task") == [
        ("ready", suspect, 0, None)
    ]
    (again,) = desk.claim()
    assert again.dispatch_no == dispatch.dispatch_no + 1


def test_nor_is_one_that_has_died_twice_and_only_waited_this_time(desk) -> None:
    dispatch = desk.root(desk.account())
    desk.conn.execute("UPDATE sync_task SET suspect = true, crashes = 2")
    assert [one.state for one in expire(desk, dispatch)] == ["ready"]
