"""Hints open runs, wait for the open one, and are bounded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from core import Listing, TaskOutput
from core.db.pool import Conn, Database
from core.errors import NotFound
from core.ledger import controls, hints, pauses, quotas, scheduling
from core.ledger.hints import MAX_PARTS, MAX_RUNS_PER_USER, PORTION
from core.states import Quota

RUNS = """
SELECT trigger, state FROM sync_run WHERE user_integration_id = %s ORDER BY started_at, id
"""


@pytest.fixture
def account(desk: Any) -> UUID:
    """An account that has synced, and is not due."""
    account: UUID = desk.account()
    desk.keep(account, TaskOutput("kept", "x"))
    return account


def later(desk: Any, account: UUID, seconds: float = 60) -> None:
    """Let this time pass for the hints of an account."""
    desk.conn.execute(
        """
        UPDATE hint SET began_at = began_at - %(span)s, due_at = due_at - %(span)s
        WHERE user_integration_id = %(account)s
        """,
        {"span": timedelta(seconds=seconds), "account": account},
    )


def finish_hinted(desk: Any, **result: Any) -> None:
    """Finish the open run, whose root task is its only task."""
    (dispatch,) = desk.claim()
    desk.finish(dispatch, **result)


def due_in(desk: Any, account: UUID) -> float | None:
    """Return the seconds until the hints of an account are due."""
    found = desk.value(
        """
        SELECT extract(epoch FROM due_at - clock_timestamp())::float FROM hint
        WHERE user_integration_id = %s
        """,
        account,
    )
    return None if found is None else float(found)


def test_a_hint_opens_a_run_immediately(desk: Any, account: UUID) -> None:
    assert hints.add(desk.conn, account, "INBOX")
    assert desk.rows(RUNS, account) == [("manual", "succeeded"), ("hint", "running")]
    (dispatch,) = desk.claim()
    assert (dispatch.type, dispatch.trigger) == ("start", "hint")
    assert hints.parts_of(desk.conn, dispatch.account_id, dispatch.run_id) == ("INBOX",)
    assert not desk.value("SELECT complete FROM sync_run WHERE trigger = 'hint'")


def test_a_hint_without_a_part_stands_for_the_account(desk: Any, account: UUID) -> None:
    hints.add(desk.conn, account, "INBOX")
    desk.conn.execute("UPDATE hint SET taken = '{}', parts = ARRAY['INBOX'], due_at = now()")
    hints.add(desk.conn, account)
    desk.conn.execute("UPDATE hint SET taken = parts")
    run = str(desk.value("SELECT id FROM sync_run WHERE trigger = 'hint'"))
    assert desk.value("SELECT parts FROM hint") == ["INBOX", ""]
    assert hints.parts_of(desk.conn, str(account), run) == ()


def test_the_end_of_the_open_run_opens_the_next_one(desk: Any, account: UUID) -> None:
    dispatch = desk.root(account)
    for part in ("b", "a", "b"):
        assert not hints.add(desk.conn, account, part)
    assert hints.open_due(desk.conn) == 0
    desk.finish(dispatch)
    assert desk.rows(RUNS, account)[1:] == [("manual", "succeeded"), ("hint", "running")]
    (root,) = desk.claim()
    assert hints.parts_of(desk.conn, str(account), root.run_id) == ("a", "b")


def test_the_next_run_is_opened_in_the_transaction_that_ends_the_run(
    desk: Any, account: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies before this commit leaves a run that another process ends."""
    dispatch = desk.root(account)
    hints.add(desk.conn, account, "a")
    died = RuntimeError("killed")

    def die(*_: object) -> bool:
        raise died

    with monkeypatch.context() as patch:
        patch.setattr(hints, "run_ended", die)
        with pytest.raises(RuntimeError):
            desk.finish(dispatch)
    assert desk.rows(RUNS, account)[1:] == [("manual", "running")]
    desk.finish(dispatch)
    assert desk.rows(RUNS, account)[1:] == [("manual", "succeeded"), ("hint", "running")]


def test_runs_of_hints_begin_at_most_every_two_seconds(desk: Any, account: UUID) -> None:
    assert hints.add(desk.conn, account, "a")
    assert not hints.add(desk.conn, account, "b")  # the run is open
    finish_hinted(desk, output=[TaskOutput("kept", "changed")])
    assert 0 < (due_in(desk, account) or 0) <= 2
    assert hints.open_due(desk.conn) == 0
    assert not hints.add(desk.conn, account, "c")
    later(desk, account, 2)
    assert hints.open_due(desk.conn) == 1
    (root,) = desk.claim()
    assert hints.parts_of(desk.conn, str(account), root.run_id) == ("b", "c")


def test_any_number_of_hints_is_one_row_and_one_run(
    desk: Any, account: UUID, database: Database
) -> None:
    def add_many(worker: int) -> int:
        with database.connection() as conn:
            return sum(hints.add(conn, account, f"part-{each % 3}") for each in range(500))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(add_many, range(4))) == 1
    assert desk.value("SELECT count(*) FROM hint") == 1
    assert [trigger for trigger, _ in desk.rows(RUNS, account)] == ["manual", "hint"]


def test_many_parts_stand_for_the_complete_account(desk: Any, account: UUID) -> None:
    desk.root(account)
    for number in range(MAX_PARTS):
        hints.add(desk.conn, account, str(number))
    assert desk.value("SELECT cardinality(parts) FROM hint") == MAX_PARTS
    hints.add(desk.conn, account, "0")
    assert desk.value("SELECT cardinality(parts) FROM hint") == MAX_PARTS
    hints.add(desk.conn, account, "one more")
    assert desk.value("SELECT parts FROM hint") == [""]


@pytest.mark.parametrize("part", ["x" * 1025, "a\0b", "\ud800"])
def test_a_part_that_cannot_be_stored_stands_for_the_account(
    desk: Any, account: UUID, part: str
) -> None:
    assert hints.add(desk.conn, account, part)
    assert desk.value("SELECT taken FROM hint") == [""]


def test_a_run_that_found_nothing_looks_again_twice(desk: Any, account: UUID) -> None:
    hints.add(desk.conn, account, "a")
    finish_hinted(desk)
    assert due_in(desk, account) == pytest.approx(5, abs=1)
    later(desk, account, 5)
    assert hints.open_due(desk.conn) == 1
    finish_hinted(desk)
    assert due_in(desk, account) == pytest.approx(30, abs=1)
    later(desk, account, 30)
    assert hints.open_due(desk.conn) == 1
    (root,) = desk.claim()
    assert hints.parts_of(desk.conn, str(account), root.run_id) == ("a",)
    desk.finish(root)
    assert due_in(desk, account) is None
    assert desk.value("SELECT parts || taken FROM hint") == []


def test_a_run_that_found_something_does_not_look_again(desk: Any, account: UUID) -> None:
    hints.add(desk.conn, account, "a")
    finish_hinted(desk, output=[TaskOutput("new", "y")])
    assert due_in(desk, account) is None
    assert desk.value("SELECT parts || taken FROM hint") == []


def test_a_hint_before_the_second_look_begins_anew(desk: Any, account: UUID) -> None:
    hints.add(desk.conn, account, "a")
    finish_hinted(desk)
    later(desk, account, 3)  # the look is due in two more seconds
    assert hints.add(desk.conn, account, "b")
    (root,) = desk.claim()
    assert hints.parts_of(desk.conn, str(account), root.run_id) == ("a", "b")
    desk.finish(root)
    assert due_in(desk, account) == pytest.approx(5, abs=1)


def test_a_run_of_hints_never_sweeps(desk: Any, account: UUID) -> None:
    hints.add(desk.conn, account)
    finish_hinted(desk, output=[TaskOutput("new", "y")], listed=[Listing()])
    assert desk.alive() == {"kept", "new"}
    finish_listing = desk.root(account)
    desk.finish(finish_listing, seen=["new"], listed=[Listing()])
    assert desk.alive() == {"new"}


def test_a_hint_does_not_move_the_next_poll(desk: Any, account: UUID) -> None:
    (planned,) = desk.rows("SELECT next_sync_at FROM user_integration")
    hints.add(desk.conn, account)
    finish_hinted(desk, output=[TaskOutput("new", "y")])
    assert desk.rows("SELECT next_sync_at FROM user_integration") == [planned]


def test_hints_do_not_keep_an_account_from_its_polls(desk: Any, account: UUID) -> None:
    hints.add(desk.conn, account)
    desk.conn.execute("UPDATE user_integration SET next_sync_at = now()")
    assert scheduling.claim_due(desk.conn, 10).joined == 1
    hints.add(desk.conn, account)
    later(desk, account, 2)
    finish_hinted(desk, output=[TaskOutput("new", "y")])
    assert 2 < (due_in(desk, account) or 0) <= 5
    assert scheduling.poll(desk.conn, 10) == 1
    (root,) = desk.claim()
    assert root.trigger == "schedule"
    assert not hints.add(desk.conn, account)
    desk.finish(root)
    assert desk.rows(RUNS, account)[-1] == ("hint", "running")


def test_a_hint_does_not_shorten_a_pause(desk: Any, account: UUID) -> None:
    until = datetime.now(UTC) + timedelta(minutes=10)
    key = f"account/{account}/*"
    desk.conn.execute("INSERT INTO limit_block (key, until) VALUES (%s, %s)", (key, until))
    desk.conn.execute(
        """
        INSERT INTO breaker (user_integration_id, integration_domain, limit_name, failed_tasks,
            first_failed_at, opened_at, probe_at)
        VALUES (%s, 'shop', '', '{}', now(), now(), %s)
        """,
        (account, until),
    )
    assert hints.add(desk.conn, account)
    assert desk.rows("SELECT until FROM limit_block") == [(until,)]
    assert desk.rows("SELECT probe_at FROM breaker") == [(until,)]


def test_the_runs_of_a_user_are_bounded(desk: Any) -> None:
    accounts = [desk.account(f"a{number}") for number in range(MAX_RUNS_PER_USER + 5)]
    assert sum(hints.add(desk.conn, account) for account in accounts) == MAX_RUNS_PER_USER
    other = desk.account("theirs", user_id="someone-else")
    assert hints.add(desk.conn, other)
    for account in accounts:
        later(desk, account, 3)
    assert hints.open_due(desk.conn) == 5


def test_the_hints_of_a_user_without_a_run_left_delay_no_others(desk: Any) -> None:
    """The leader looks at one account of the user, and passes over the others."""
    accounts = [desk.account(f"a{number}") for number in range(PORTION + 30)]
    other = desk.account("theirs", user_id="someone-else")
    quotas.set_quotas(desk.conn, "u", {Quota.RUNS: 0})
    hints.add_all(desk.conn, accounts)
    hints.add_all(desk.conn, [other])
    in_order = "SELECT user_integration_id FROM hint WHERE user_id = 'u' ORDER BY due_at"
    before = desk.rows(in_order)
    assert hints.open_due(desk.conn) == 1
    assert desk.rows(RUNS, other) == [("hint", "running")]
    assert desk.value("SELECT count(*) FROM hint WHERE due_at <= clock_timestamp()") == 0
    assert desk.rows(in_order) == before


@pytest.mark.parametrize("status", ["paused", "error", "disconnected"])
def test_an_account_that_is_not_active_takes_no_hint(desk: Any, account: UUID, status: str) -> None:
    desk.conn.execute("UPDATE user_integration SET sync_status = %s", (status,))
    assert not hints.add(desk.conn, account)
    assert desk.rows("SELECT * FROM hint") == []


def test_hints_of_an_account_that_stops_are_dropped(desk: Any, account: UUID) -> None:
    dispatch = desk.root(account)
    hints.add(desk.conn, account)
    desk.conn.execute("UPDATE user_integration SET sync_status = 'error'")
    desk.finish(dispatch)
    assert desk.rows("SELECT * FROM hint") == []
    assert desk.rows(RUNS, account)[1:] == [("manual", "succeeded")]


def test_hints_wait_while_the_integration_is_paused(desk: Any, account: UUID) -> None:
    entry = {"domain": "shop", "version": None, "name": "Shop", "tasks": [], "max_tasks": 100}
    pauses.pause(desk.conn, entry, None)
    assert not hints.add(desk.conn, account, "a")
    hints.release(desk.conn)
    assert hints.open_due(desk.conn) == 0
    desk.conn.execute("UPDATE integration SET paused_at = NULL, paused_until = NULL")
    hints.release(desk.conn)
    assert hints.open_due(desk.conn) == 1


def test_hints_of_a_cancelled_run_are_not_lost(desk: Any, account: UUID) -> None:
    run = desk.run(account)
    hints.add(desk.conn, account, "a")
    controls.cancel_run(desk.conn, run)
    assert hints.open_due(desk.conn) == 0
    hints.release(desk.conn)
    assert hints.open_due(desk.conn) == 1


def test_a_resync_that_is_due_comes_first(desk: Any, account: UUID) -> None:
    desk.conn.execute("UPDATE user_integration SET resync_due = true, next_sync_at = now()")
    assert not hints.add(desk.conn, account, "a")
    scheduling.claim_due(desk.conn, 10)
    (root,) = desk.claim()
    assert root.trigger == "resync"
    desk.finish(root)
    assert desk.rows(RUNS, account)[1:] == [("resync", "succeeded"), ("hint", "running")]


def test_an_unknown_account_is_not_found(conn: Conn) -> None:
    with pytest.raises(NotFound):
        hints.add(conn, uuid4())


def claimed(desk: Any, account: UUID) -> Any:
    desk.conn.execute("UPDATE user_integration SET next_sync_at = now()")
    scheduling.claim_due(desk.conn, 10)
    return desk.claim()[0]


@pytest.mark.parametrize("start", [claimed, lambda desk, account: desk.root(account)])
def test_a_next_poll_set_during_a_run_is_kept(
    desk: Any, account: UUID, start: Callable[..., Any]
) -> None:
    dispatch = start(desk, account)
    desk.conn.execute("UPDATE user_integration SET next_sync_at = now()")
    (chosen,) = desk.rows("SELECT next_sync_at FROM user_integration")
    desk.finish(dispatch)
    assert desk.rows("SELECT next_sync_at FROM user_integration") == [chosen]


@pytest.mark.parametrize("start", [claimed, lambda desk, account: desk.root(account)])
def test_a_run_during_which_no_poll_was_set_plans_the_next_one(
    desk: Any, account: UUID, start: Callable[..., Any]
) -> None:
    desk.conn.execute("UPDATE user_integration SET next_sync_at = now() + interval '9 minutes'")
    desk.finish(start(desk, account))
    minutes = desk.value(
        "SELECT extract(epoch FROM next_sync_at - now())::float / 60 FROM user_integration"
    )
    assert minutes == pytest.approx(15, abs=1)


def test_a_hint_continues_what_earlier_runs_owe(desk: Any, account: UUID) -> None:
    run = desk.run(account)
    desk.add(run, "left")
    controls.cancel_run(desk.conn, run)
    assert hints.add(desk.conn, account)
    assert {dispatch.type for dispatch in desk.claim()} == {"start", "step"}
