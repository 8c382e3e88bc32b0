"""A person decides on held deletions, and exactly what was shown is deleted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from core import Listing, Task, TaskOutput
from core.errors import NotFound
from core.ledger import controls
from core.results.text import json_text
from core.service.content import deletions

MANY = [f"{number:02}" for number in range(40)]
SHOWN = {*MANY}


def listing(desk, account, *, seen=(), output=(), places=(), **given: Any) -> None:
    """Complete a run with this listing."""
    result = {"seen": seen, "output": output, "listed": places or [Listing()]}
    desk.finish(desk.root(account, **given), **result)


@pytest.fixture
def account(desk) -> UUID:
    """An account with 40 items, of which a listing lacks 30: the engine holds them."""
    account = desk.account()
    desk.keep(account, *(TaskOutput(id) for id in MANY))
    listing(desk, account, seen=MANY[:10])
    return account


@pytest.fixture
def hold(desk, account) -> int:
    return held(desk)[0]["id"]


def held(desk) -> list[dict[str, Any]]:
    return list(deletions.deletions.pages(desk.conn))


def items(desk, id: int) -> set[str]:
    return {row["external_id"] for row in deletions.items.pages(desk.conn, held_deletion_id=id)}


def confirming(desk, account):
    """Return the dispatched root of the run that confirms."""
    (root,) = desk.claim()
    assert root.type == "start"
    assert desk.value("SELECT complete FROM sync_run WHERE id = %s", UUID(root.run_id)) is True
    return root


def test_a_held_deletion_shows_its_items(desk, account, hold) -> None:
    (row,) = held(desk)
    assert (row["state"], row["vanished"], row["total"], row["parent"]) == ("held", 30, 40, None)
    assert items(desk, hold) == {*MANY[10:]}
    first = deletions.page_of_items(desk.conn, hold, limit=20)
    second = deletions.page_of_items(desk.conn, hold, limit=20, after=first.cursor)
    assert [row["external_id"] for row in (*first.rows, *second.rows)] == MANY[10:]
    assert second.cursor is None


def test_an_acceptance_deletes_what_was_shown_and_is_still_missing(
    desk, backend, account, hold
) -> None:
    (decided,) = deletions.accept(backend, [hold])
    assert (decided.row["state"], desk.alive()) == ("accepted", SHOWN)
    root = confirming(desk, account)
    assert (decided.run, root.trigger) == (UUID(root.run_id), "manual")
    desk.finish(root, seen=MANY[:20], listed=[Listing()])
    assert desk.alive() == {*MANY[:20]}
    assert held(desk) == []
    assert desk.value("SELECT outputs_deleted FROM sync_run WHERE id = %s", decided.run) == 20


def test_an_empty_source_after_the_acceptance_deletes_nothing_else(
    desk, backend, account, hold
) -> None:
    deletions.accept(backend, [hold])
    desk.finish(confirming(desk, account), listed=[Listing()])
    assert desk.alive() == {*MANY[:10]}
    (again,) = held(desk)
    assert (again["state"], items(desk, again["id"])) == ("held", {*MANY[:10]})
    assert again["id"] != hold


def test_what_else_disappears_is_held_even_if_the_guard_would_allow_it(
    desk, backend, account, hold
) -> None:
    deletions.accept(backend, [hold])
    desk.finish(confirming(desk, account), seen=MANY[:9], listed=[Listing()])
    (again,) = held(desk)
    assert (desk.alive(), items(desk, again["id"])) == ({*MANY[:10]}, {MANY[9]})


def test_an_accepted_folder_takes_only_the_shown_items_with_it(desk, backend) -> None:
    account = desk.account()
    inside = [TaskOutput(f"d/{id}", parent="d") for id in MANY]
    desk.keep(account, TaskOutput("d"), *inside)
    listing(desk, account)
    (row,) = held(desk)
    assert items(desk, row["id"]) == {"d", *(one.id for one in inside)}
    desk.keep(account, TaskOutput("d/new", parent="d"))
    deletions.accept(backend, [row["id"]])
    desk.finish(confirming(desk, account), listed=[Listing()])
    assert desk.alive() == {"d/new"}
    (again,) = held(desk)
    assert items(desk, again["id"]) == {"d/new"}


def test_other_listings_of_the_confirming_run_keep_the_guard(desk, backend, account, hold) -> None:
    desk.keep(account, *(TaskOutput(f"b{id}", parent="box") for id in MANY))
    deletions.accept(backend, [hold])
    desk.finish(confirming(desk, account), seen=MANY[:10], listed=[Listing(), Listing("box")])
    assert desk.alive() == {*MANY[:10], *(f"b{id}" for id in MANY)}
    assert [row["parent"] for row in held(desk)] == ["box"]


def test_an_acceptance_in_a_run_waits_for_the_next_one(desk, backend, account, hold) -> None:
    root = desk.root(account)
    (decided,) = deletions.accept(backend, [hold])
    assert decided.run is None
    desk.finish(root, seen=MANY[:10], listed=[Listing()])
    assert desk.alive() == SHOWN
    assert desk.value("SELECT next_sync_at <= clock_timestamp() FROM user_integration") is True
    assert desk.value("SELECT state FROM held_deletion") == "accepted"
    listing(desk, account, seen=MANY[:10])
    assert desk.alive() == {*MANY[:10]}


def test_a_scheduled_run_after_the_acceptance_confirms(desk, backend, account, hold) -> None:
    from core.ledger import scheduling

    desk.conn.execute("UPDATE user_integration SET sync_status = 'paused'")
    (decided,) = deletions.accept(backend, [hold])
    assert decided.run is None
    desk.conn.execute("UPDATE user_integration SET sync_status = 'active', next_sync_at = now()")
    scheduling.poll(desk.conn, 10)
    root = confirming(desk, account)
    assert root.trigger == "schedule"
    desk.finish(root, seen=MANY[:10], listed=[Listing()])
    assert desk.alive() == {*MANY[:10]}


def test_a_listing_in_the_backfill_of_the_confirming_run_confirms(
    desk, backend, account, hold
) -> None:
    deletions.accept(backend, [hold])
    desk.finish(confirming(desk, account), tasks=[Task("page", background=True)])
    assert held(desk)[0]["state"] == "accepted"
    (page,) = desk.claim()
    assert page.lane == "backfill"
    complete = "SELECT complete FROM sync_run WHERE id = %s"
    assert desk.value(complete, UUID(page.run_id)) is True
    desk.finish(page, seen=MANY[:10], listed=[Listing()])
    assert (desk.alive(), held(desk)) == ({*MANY[:10]}, [])


def test_a_run_that_does_not_list_the_items_returns_them_to_the_person(
    desk, backend, account, hold
) -> None:
    deletions.accept(backend, [hold])
    desk.finish(confirming(desk, account), seen=MANY[:10])
    (row,) = held(desk)
    assert (row["id"], row["state"], row["decided_at"]) == (hold, "held", None)
    assert desk.value("SELECT complete FROM sync_run WHERE id = %s", desk.run(account)) is False


def test_a_cancelled_run_leaves_the_acceptance_to_the_next_one(
    desk, backend, account, hold
) -> None:
    deletions.accept(backend, [hold])
    controls.cancel_run(desk.conn, UUID(confirming(desk, account).run_id))
    listing(desk, account, seen=MANY[:10])
    assert desk.alive() == {*MANY[:10]}


def test_an_item_that_the_source_shows_leaves_the_held_deletion(desk, account, hold) -> None:
    listing(desk, account, seen=MANY[:15])
    (row,) = held(desk)
    assert (row["id"], row["vanished"], items(desk, hold)) == (hold, 25, {*MANY[15:]})
    desk.finish(desk.root(account), output=[TaskOutput(MANY[15], "new")])
    assert items(desk, hold) == {*MANY[16:]}
    listing(desk, account, seen=MANY)
    assert held(desk) == []


def test_items_that_disappear_later_do_not_join_what_was_shown(
    desk, backend, account, hold
) -> None:
    listing(desk, account, seen=MANY[:5])
    (row,) = held(desk)
    assert row["id"] != hold
    assert items(desk, row["id"]) == {*MANY[5:]}
    with pytest.raises(NotFound, match=f"held deletion {hold} not found"):
        deletions.accept(backend, [row["id"], hold])
    assert held(desk)[0]["state"] == "held"


def test_items_that_wait_stay_when_other_items_make_their_share_small(desk, account, hold) -> None:
    other = [TaskOutput(f"other {id}") for id in (*MANY, *(f"1{id}" for id in MANY))]
    listing(desk, account, seen=MANY[:10], output=other)
    assert desk.alive() >= SHOWN
    (row,) = held(desk)
    assert (row["id"], row["total"], items(desk, hold)) == (hold, 120, {*MANY[10:]})
    listing(desk, account, seen=[*MANY[:9], *(each.id for each in other)])
    (row,) = held(desk)
    assert (desk.alive() >= SHOWN, items(desk, row["id"])) == (True, {*MANY[9:]})


def test_an_account_that_keeps_items_has_no_held_deletions(desk, account, hold) -> None:
    from core.accounts import store
    from core.states import Deletions

    root = desk.root(account)
    store.set_deletions(desk.conn, account, Deletions.KEEP)
    # A transaction that read the account before this change may hold a deletion after it.
    late = desk.hold(account, UUID(root.run_id), *MANY[10:])
    assert held(desk) == []
    with pytest.raises(NotFound):
        deletions.page_of_items(desk.conn, late)
    desk.finish(root, seen=MANY[:10], listed=[Listing()])
    state = "SELECT state FROM held_deletion WHERE id = %s"
    assert desk.rows(state, late) in ([], [("dropped",)])


def test_items_that_wait_stay_when_the_source_names_them(desk, account, hold) -> None:
    desk.finish(desk.root(account), output=[TaskOutput.gone(MANY[10]), TaskOutput.gone(MANY[0])])
    assert desk.alive() == SHOWN - {MANY[0]}
    assert [(row["id"], row["vanished"]) for row in held(desk)] == [(hold, 30)]


def test_items_that_wait_stay_when_the_source_names_their_folder(desk) -> None:
    account = desk.account()
    below = [TaskOutput(f"d/{id}", parent="d") for id in MANY]
    desk.keep(account, TaskOutput("d"), TaskOutput("e"), *below)
    listing(desk, account, seen=["d", "e"], places=[Listing("d")])
    desk.keep(account, *(TaskOutput(f"e/{number}", parent="e") for number in range(90)))
    desk.finish(desk.root(account), output=[TaskOutput.gone("d")])
    assert desk.alive() >= {one.id for one in below}
    assert [row["vanished"] for row in held(desk)] == [40]


def test_the_window_of_another_day_does_not_hold_the_same_items_twice(desk) -> None:
    from datetime import UTC, datetime

    account = desk.account()
    today = datetime(2026, 1, 9, tzinfo=UTC)
    desk.keep(account, *(TaskOutput(id, timestamp=today) for id in MANY))
    for day in (1, 2):
        window = Listing(since=datetime(2026, 1, day, tzinfo=UTC))
        listing(desk, account, seen=MANY[:10], places=[window])
    (row,) = held(desk)
    assert len(items(desk, row["id"])) == 30


def test_refused_items_stay_and_other_deletions_go_on(desk, backend, account, hold) -> None:
    deletions.refuse(backend, [hold])
    listing(desk, account, seen=MANY[:8])
    assert desk.alive() == {*MANY[:8], *MANY[10:]}
    (row,) = held(desk)
    assert (row["id"], row["state"], len(items(desk, hold))) == (hold, "refused", 30)


def test_refused_items_stay_when_the_source_names_them_or_their_folder(desk, backend) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("d"), *(TaskOutput(f"d/{id}", parent="d") for id in MANY))
    listing(desk, account, seen=["d"], places=[Listing("d")])
    deletions.refuse(backend, [held(desk)[0]["id"]])
    desk.finish(desk.root(account), output=[TaskOutput.gone("d/00"), TaskOutput.gone("d")])
    assert desk.alive() == {f"d/{id}" for id in MANY}


def test_a_refusal_ends_when_the_source_shows_the_items(desk, backend, account, hold) -> None:
    deletions.refuse(backend, [hold])
    listing(desk, account, seen=MANY[:39])
    assert items(desk, hold) == {MANY[39]}
    listing(desk, account, seen=MANY)
    assert held(desk) == []
    listing(desk, account, seen=MANY[:39])
    assert desk.alive() == {*MANY[:39]}


def test_a_refused_deletion_can_be_accepted(desk, backend, account, hold) -> None:
    deletions.refuse(backend, [hold])
    deletions.accept(backend, [hold])
    desk.finish(confirming(desk, account), seen=MANY[:10], listed=[Listing()])
    assert desk.alive() == {*MANY[:10]}


def test_an_acceptance_that_is_repeated_stays_as_it_was(desk, backend, account, hold) -> None:
    (first,) = deletions.accept(backend, [hold])
    (again,) = deletions.accept(backend, [hold])
    assert (again.row, again.run) == (first.row, None)


def test_a_carried_listing_confirms_nothing(desk, backend, account, hold) -> None:
    root = desk.root(account)
    desk.finish(root, tasks=[Task("page")])
    controls.cancel_run(desk.conn, UUID(root.run_id))
    deletions.accept(backend, [hold])
    dispatches = {dispatch.type: dispatch for dispatch in desk.claim()}
    desk.finish(dispatches["page"], listed=[Listing()])
    assert desk.alive() == SHOWN


def test_a_disconnected_account_has_no_held_deletions_after_it_is_erased(
    desk, backend, account, hold
) -> None:
    from core.service.accounts.erase import erase_account

    erase_account(backend, account)
    assert json_text(desk.rows("SELECT * FROM held_deletion_item")) == "[]"
