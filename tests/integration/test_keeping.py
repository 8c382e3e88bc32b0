"""An account that keeps items: what disappears at the source stays, and says since when."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from integration_polling_hello_world import HelloWorld

from core import Listing, Task, TaskOutput
from core.accounts import store
from core.content import holds
from core.service.accounts import actions, queries
from core.service.accounts.erase import erase_account
from core.service.authorization import Principal
from core.service.content import changes
from core.states import Deletions

EVERYONE = Principal(UUID(int=1), None)


@pytest.fixture
def integrations() -> list[type[HelloWorld]]:
    return [HelloWorld]


def keeping(desk, name: str = "someone") -> UUID:
    account = desk.account(name)
    store.set_deletions(desk.conn, account, Deletions.KEEP)
    return account


def gone(desk) -> set[str]:
    return set(desk.content(where="gone_at_source IS NOT NULL"))


def listed(desk, account, *, seen=(), output=(), places=(), **given: Any) -> None:
    result = {"seen": seen, "output": output, "listed": places or [Listing()]}
    desk.finish(desk.root(account, **given), **result)


def test_a_missing_item_stays_and_says_since_when(desk) -> None:
    account = keeping(desk)
    desk.keep(account, *(TaskOutput(id) for id in "abc"), TaskOutput("c/x", parent="c"))
    began = desk.value("SELECT now()")
    listed(desk, account, seen="ab")
    assert (desk.alive(), gone(desk)) == ({"a", "b", "c", "c/x"}, {"c", "c/x"})
    since = desk.content("gone_at_source")["c"]
    assert since > began
    assert desk.value("SELECT outputs_deleted FROM sync_run ORDER BY started_at DESC LIMIT 1") == 0
    listed(desk, account, seen="ab")
    assert desk.content("gone_at_source")["c"] == since


def test_an_account_that_keeps_content_has_no_held_deletions(desk) -> None:
    account = keeping(desk)
    desk.keep(account, *(TaskOutput(str(n)) for n in range(40)))
    listed(desk, account)
    assert len(gone(desk)) == len(desk.alive()) == 40
    assert desk.value("SELECT count(*) FROM held_deletion") == 0


@pytest.mark.parametrize(
    "shown",
    [
        {"seen": ["a"]},
        {"output": [TaskOutput("a")]},
        {"output": [TaskOutput("a", "other")]},
        {"output": [TaskOutput.update("a", metadata={})]},
    ],
    ids=["seen", "unchanged", "changed", "updated"],
)
def test_the_mark_goes_when_the_source_shows_the_item_again(desk, shown) -> None:
    account = keeping(desk)
    desk.keep(account, TaskOutput("a"), TaskOutput("b"))
    listed(desk, account, seen="b")
    assert gone(desk) == {"a"}
    before = desk.content("updated_at, changed_xid")["a"]
    desk.finish(desk.root(account), **shown)
    assert gone(desk) == set()
    after = desk.content("updated_at, changed_xid")["a"]
    assert after[0] > before[0]
    assert after[1] > before[1]


def test_an_earlier_page_that_is_saved_late_does_not_show_an_item_again(desk) -> None:
    account = keeping(desk)
    desk.keep(account, TaskOutput("a"), TaskOutput("b"))
    root = desk.root(account)
    desk.add(root.run_id, "late", "listing")
    late, listing = desk.claim()
    desk.finish(listing, output=[TaskOutput.gone("a")])
    desk.finish(late, seen=["a"])
    assert gone(desk) == {"a"}


def test_a_named_deletion_does_the_same(desk) -> None:
    account = keeping(desk)
    desk.keep(account, TaskOutput("a"), TaskOutput("a/x", parent="a"), TaskOutput("b"))
    saved = desk.finish(desk.root(account), output=[TaskOutput.gone("a")])
    assert (desk.alive(), gone(desk)) == ({"a", "a/x", "b"}, {"a", "a/x"})
    assert saved.changed == {(str(account), "shop"): ["a"]}


def test_many_named_deletions_hold_nothing(desk) -> None:
    account = keeping(desk)
    ids = [f"{number:02}" for number in range(30)]
    desk.keep(account, *map(TaskOutput, ids))
    desk.finish(desk.root(account), output=[TaskOutput.gone(id) for id in ids[:25]])
    assert (desk.alive(), gone(desk)) == (set(ids), set(ids[:25]))
    assert desk.value("SELECT count(*) FROM held_deletion") == 0


def test_a_result_may_remove_a_folder_and_show_a_file_in_it(desk) -> None:
    account = keeping(desk)
    file = TaskOutput("p/kept", "1", parent="p")
    desk.keep(account, TaskOutput("p"), TaskOutput("p/old", parent="p"), file)
    desk.finish(desk.root(account), output=[TaskOutput.gone("p"), file])
    assert gone(desk) == {"p", "p/old"}


def test_other_accounts_of_the_batch_still_mark(desk) -> None:
    keeps, marks = keeping(desk, "keeps"), desk.account("marks")
    outcomes = []
    for account, name in ((keeps, "k"), (marks, "m")):
        desk.keep(account, TaskOutput(name), TaskOutput(f"{name}2"))
    for account, name in ((keeps, "k"), (marks, "m")):
        outcomes.append(desk.outcome(desk.root(account), seen=[f"{name}2"], listed=[Listing()]))
    desk.save(*outcomes)
    assert (gone(desk), desk.alive()) == ({"k"}, {"k", "k2", "m2"})


def test_a_change_to_keep_drops_held_deletions_and_a_change_back_marks(desk) -> None:
    account = desk.account()
    desk.keep(account, *(TaskOutput(str(n)) for n in range(40)))
    listed(desk, account, seen=["0"])
    assert desk.value("SELECT count(*) FROM held_deletion") == 1
    store.set_deletions(desk.conn, account, Deletions.KEEP)
    assert desk.value("SELECT state FROM held_deletion") == "dropped"
    holds.prune(desk.conn, 60.0)
    assert desk.value("SELECT count(*) FROM held_deletion") == 0
    listed(desk, account, seen=[str(n) for n in range(30)])
    assert len(gone(desk)) == 10
    store.set_deletions(desk.conn, account, Deletions.MARK)
    listed(desk, account, seen=[str(n) for n in range(30)])
    assert desk.alive() == {str(n) for n in range(30)}


def test_the_feed_shows_an_item_that_is_gone_and_one_that_is_back(desk) -> None:
    account = keeping(desk)
    desk.keep(account, TaskOutput("a"), TaskOutput("b"))
    cursor = changes.read(desk.conn, EVERYONE).cursor
    for seen, is_gone in (("b", True), ("ab", False)):
        listed(desk, account, seen=seen)
        feed = changes.read(desk.conn, EVERYONE, after=cursor)
        cursor = feed.cursor
        (change,) = feed.changes
        assert change.content is not None
        assert (change.kind, change.content["external_id"]) == ("updated", "a")
        assert (change.content["gone_at_source"] is not None) is is_gone


def test_totals_count_the_items_that_are_gone(desk) -> None:
    account = keeping(desk)
    desk.keep(account, TaskOutput("a"), TaskOutput("b"))
    listed(desk, account, seen="b")
    totals = queries.account_totals(desk.conn, account)
    assert (totals["items"], totals["deleted"], totals["gone_at_source"]) == (2, 0, 1)


def test_an_erasure_deletes_content_that_the_account_keeps(desk, backend) -> None:
    account = keeping(desk)
    desk.keep(account, TaskOutput("a"), TaskOutput("b"))
    listed(desk, account, seen="b")
    erase_account(backend, account)
    assert desk.content() == {}


def test_connecting_again_keeps_the_choice(desk, backend) -> None:
    connect = {"config": {}, "credentials": {}}
    first = actions.connect(backend, "hello-world", **connect, deletions=Deletions.KEEP)
    actions.connect(backend, "hello-world", **connect)
    assert desk.value("SELECT deletions FROM user_integration WHERE id = %s", first.id) == "keep"
    actions.configure(backend, first.id, deletions=Deletions.MARK)
    assert desk.value("SELECT deletions FROM user_integration WHERE id = %s", first.id) == "mark"


def test_a_background_page_of_the_account_keeps_too(desk) -> None:
    account = keeping(desk)
    desk.keep(account, TaskOutput("a"), TaskOutput("b"))
    desk.finish(desk.root(account), tasks=[Task("page", background=True)])
    (page,) = desk.claim()
    desk.finish(page, seen=["b"], listed=[Listing()])
    assert (page.lane, gone(desk)) == ("backfill", {"a"})
