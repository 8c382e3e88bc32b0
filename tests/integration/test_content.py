"""Kept content: one row per item, written only on a change, by the task dispatched last."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from core import Listing, Task, TaskOutput
from core.ledger import controls, leases
from core.ledger.dispatching import TaskPortion
from core.ledger.outcomes import Outcome


@pytest.fixture
def writers(desk):
    """Return `writers(3)`, which dispatches tasks of one run in the order of their sequence."""

    def make(count: int):
        root = desk.root(desk.account())
        desk.add(root.run_id, *map(str, range(count)))
        return sorted(desk.claim(), key=lambda dispatch: dispatch.dispatch_seq)

    return make


def keep(desk, dispatch, *outputs: TaskOutput, **more):
    return desk.save(desk.outcome(dispatch, output=outputs, **more))


def counts(desk, dispatch) -> tuple[int, int, int]:
    return desk.rows(
        "SELECT outputs_saved, outputs_unchanged, outputs_deleted FROM sync_task WHERE id = %s",
        dispatch.task_id,
    )[0]


def physical(desk) -> list[tuple[str, ...]]:
    return desk.rows(
        "SELECT xmin::text, ctid::text, external_id FROM user_integration_content ORDER BY 3"
    )


def test_an_item_is_stored_in_its_columns(desk, writers) -> None:
    (one,) = writers(1)
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    item = TaskOutput(
        "a", "text", "message", "box", "Subject", moment, "text/plain", {"x": [1]}, "f1"
    )
    keep(
        desk,
        one,
        item,
        TaskOutput("b", b"\0\xff"),
        TaskOutput("c"),
        TaskOutput("d", b"x" * 2_000_000),
    )
    columns = (
        "kind, parent, name, external_timestamp, content_type, content_text, size, metadata,"
        " fingerprint, integration_domain"
    )
    assert desk.content(columns)["a"] == [
        "message",
        "box",
        "Subject",
        moment,
        "text/plain",
        "text",
        4,
        {"x": [1]},
        "f1",
        "shop",
    ]
    assert desk.content("content_bytes", "external_id IN ('b', 'c')") == {"b": b"\0\xff", "c": None}
    assert desk.blobs.get(desk.content("blob_key")["d"]) == b"x" * 2_000_000
    assert counts(desk, one) == (4, 0, 0)


def test_an_unchanged_item_writes_nothing(desk, writers) -> None:
    first, second = writers(2)
    items = [
        TaskOutput("a", "text", metadata={"x": 1, "y": 2}),
        TaskOutput("b", b"bytes", parent="a"),
    ]
    keep(desk, first, *items)
    before = physical(desk)
    saved = keep(desk, second, items[1], TaskOutput("a", "text", metadata={"y": 2, "x": 1}))
    assert physical(desk) == before
    assert saved.changed == {}
    assert counts(desk, second) == (0, 2, 0)


def test_only_changed_items_are_written_and_enter_the_feed(desk, writers) -> None:
    first, second = writers(2)
    keep(desk, first, TaskOutput("a", "1"), TaskOutput("b", "1"))
    before = physical(desk)
    saved = keep(desk, second, TaskOutput("a", "1"), TaskOutput("b", "2"), TaskOutput("c", "1"))
    assert physical(desk)[0] == before[0]
    assert saved.changed == {(second.account_id, "shop"): ["b", "c"]}
    assert counts(desk, second) == (2, 1, 0)


def test_the_last_of_two_outputs_with_one_id_is_kept(desk, writers) -> None:
    (one,) = writers(1)
    keep(desk, one, TaskOutput("a", "first"), TaskOutput("a", "second"))
    assert desk.content() == {"a": "second"}


@pytest.mark.parametrize("in_one_batch", [False, True])
def test_the_content_of_the_last_dispatched_task_wins(desk, writers, in_one_batch: bool) -> None:
    early, late = writers(2)
    outcomes = [
        desk.outcome(late, output=[TaskOutput("a", "late")]),
        desk.outcome(early, output=[TaskOutput("a", "early")]),
    ]
    for batch in [outcomes] if in_one_batch else [[one] for one in outcomes]:
        assert len(desk.save(*batch).applied) == len(batch)
    assert desk.content() == {"a": "late"}


# The operation `update`


def test_an_update_changes_only_the_metadata_given(desk, writers) -> None:
    first, second, third = writers(3)
    keep(
        desk, first, TaskOutput("a", "text", name="n", metadata={"x": 1, "y": 1}, fingerprint="f1")
    )
    keep(
        desk,
        second,
        TaskOutput.update("a", metadata={"y": 2}, fingerprint="f2"),
        TaskOutput.update("unknown", metadata={"y": 2}),
    )
    assert desk.content("content_text, name, metadata, fingerprint") == {
        "a": ["text", "n", {"x": 1, "y": 2}, "f2"]
    }
    assert counts(desk, second) == (1, 1, 0)
    before = physical(desk)
    keep(desk, third, TaskOutput.update("a", metadata={"y": 2}))
    assert physical(desk) == before


def test_an_update_that_removes_something_from_a_nested_value_is_written(desk, writers) -> None:
    first, second, third = writers(3)
    keep(
        desk,
        first,
        TaskOutput("a", metadata={"labels": ["new", "work"], "by": {"x": 1, "y": 2}, "z": 1}),
    )
    saved = keep(
        desk, second, TaskOutput.update("a", metadata={"labels": ["work"], "by": {"x": 1}})
    )
    assert desk.content("metadata") == {"a": {"labels": ["work"], "by": {"x": 1}, "z": 1}}
    assert saved.changed == {(second.account_id, "shop"): ["a"]}
    keep(desk, third, TaskOutput.update("a", metadata={"labels": []}))
    assert desk.content("metadata") == {"a": {"labels": [], "by": {"x": 1}, "z": 1}}


def test_an_item_fetched_after_an_update_is_written_again(desk, writers) -> None:
    first, second, third = writers(3)
    item = TaskOutput("a", "text", metadata={"x": 1})
    keep(desk, first, item)
    keep(desk, second, TaskOutput.update("a", metadata={"x": 2}))
    keep(desk, third, item)
    assert desk.content("metadata") == {"a": {"x": 1}}


def test_an_update_dispatched_later_survives_content_saved_later(desk, writers) -> None:
    first, content, update = writers(3)
    keep(desk, first, TaskOutput("a", "old", metadata={"read": False}))
    keep(desk, update, TaskOutput.update("a", metadata={"read": True}))
    keep(desk, content, TaskOutput("a", "new", metadata={"read": False}))
    assert desk.content("content_text, metadata") == {"a": ["new", {"read": True}]}


def test_a_late_update_is_ignored(desk, writers) -> None:
    update, content = writers(2)
    keep(desk, content, TaskOutput("a", "new", metadata={"x": 2}))
    keep(desk, update, TaskOutput.update("a", metadata={"x": 1}))
    assert desk.content("metadata") == {"a": {"x": 2}}


def test_two_updates_in_one_batch_both_count(desk, writers) -> None:
    first, second, third = writers(3)
    keep(desk, first, TaskOutput("a", "text"))
    desk.save(
        *(
            desk.outcome(one, output=[TaskOutput.update("a", metadata={key: 1})])
            for key, one in (("x", second), ("y", third))
        )
    )
    assert desk.content("metadata") == {"a": {"x": 1, "y": 1}}


def test_an_update_after_its_item_in_one_result_counts(desk, writers) -> None:
    (one,) = writers(1)
    keep(
        desk,
        one,
        TaskOutput("a", "text", metadata={"x": 1}),
        TaskOutput.update("a", metadata={"y": 1}),
    )
    assert desk.content("metadata") == {"a": {"x": 1, "y": 1}}


# The operation `tombstone`


def test_a_tombstone_covers_the_children_of_an_item(desk, writers) -> None:
    first, second = writers(2)
    tree = [
        TaskOutput("a"),
        TaskOutput("a/b", parent="a"),
        TaskOutput("a/b/c", parent="a/b"),
        TaskOutput("z"),
        TaskOutput("loop", parent="loop"),
    ]
    keep(desk, first, *tree)
    saved = keep(
        desk, second, TaskOutput.gone("a"), TaskOutput.gone("loop"), TaskOutput.gone("unknown")
    )
    assert desk.alive() == {"z"}
    assert counts(desk, second) == (0, 0, 4)
    assert saved.changed == {(second.account_id, "shop"): ["a", "loop"]}
    keep(desk, second, TaskOutput.gone("a"))


def test_another_accounts_item_of_the_same_id_stays(desk) -> None:
    for name in ("one", "two"):
        desk.keep(desk.account(name), TaskOutput("a"), TaskOutput("b", parent="a"))
    desk.keep(desk.account("one"), TaskOutput.gone("a"))
    assert desk.value("SELECT count(*) FROM user_integration_content WHERE deleted_at IS NULL") == 2


def test_an_item_that_returns_is_no_longer_deleted(desk, writers) -> None:
    for number, one in enumerate(writers(3)):
        keep(desk, one, TaskOutput.gone("a") if number == 1 else TaskOutput("a", "text"))
        assert desk.alive() == (set() if number == 1 else {"a"})


@pytest.mark.parametrize("in_one_batch", [False, True])
def test_a_slow_download_cannot_restore_a_deleted_item(desk, writers, in_one_batch: bool) -> None:
    first, download, tombstone = writers(3)
    keep(desk, first, TaskOutput("a", "old"))
    outcomes = [
        desk.outcome(tombstone, output=[TaskOutput.gone("a")]),
        desk.outcome(download, output=[TaskOutput("a", "new")]),
    ]
    for batch in [outcomes] if in_one_batch else [[one] for one in outcomes]:
        desk.save(*batch)
    assert desk.alive() == set()


def test_a_late_tombstone_does_not_delete_an_item_fetched_after_it(desk, writers) -> None:
    first, tombstone, download = writers(3)
    keep(desk, first, TaskOutput("a", "old"))
    keep(desk, download, TaskOutput("a", "new"))
    keep(desk, tombstone, TaskOutput.gone("a"))
    assert desk.alive() == {"a"}


def test_a_slow_first_download_cannot_restore_a_deleted_item(desk, writers) -> None:
    download, tombstone = writers(2)
    keep(desk, tombstone, TaskOutput.gone("a"))
    keep(desk, download, TaskOutput("a", "new"))
    assert desk.alive() == set()


def test_an_item_that_was_never_kept_gets_a_tombstone_outside_the_feed(desk, writers) -> None:
    tombstone, download = writers(2)
    saved = keep(desk, tombstone, TaskOutput.gone("a"))
    assert desk.content("deleted_at IS NOT NULL, content_seq") == {
        "a": [True, tombstone.dispatch_seq]
    }
    assert (saved.changed, counts(desk, tombstone)) == ({}, (0, 0, 0))
    keep(desk, download, TaskOutput("a", "new"))
    assert desk.content("content_text, deleted_at") == {"a": ["new", None]}


@pytest.mark.parametrize("known", [False, True])
def test_the_later_output_about_an_item_in_one_result_wins(desk, writers, known: bool) -> None:
    first, second, third = writers(3)
    if known:
        keep(desk, first, TaskOutput("p", "old"))
    keep(desk, second, TaskOutput.gone("p"), TaskOutput("p", "new"))
    assert desk.content("content_text", "deleted_at IS NULL") == {"p": "new"}
    keep(desk, third, TaskOutput("p", "newer"), TaskOutput.gone("p"))
    assert desk.alive() == set()


def test_concurrent_writers_of_the_same_items_do_not_deadlock(
    desk, writers, connect, together
) -> None:
    dispatches = writers(12)
    outcomes = []
    for number, one in enumerate(dispatches):
        ids = [str(n) for n in range(40)][:: 1 if number % 2 else -1]
        outcomes.append(
            desk.outcome(
                one,
                output=(
                    [TaskOutput(id, f"{number}") for id in ids]
                    if number % 3
                    else [TaskOutput.gone(id) for id in ids]
                ),
            )
        )
    conns = [connect() for _ in outcomes]
    saved = together(
        *(lambda o=o, c=c: desk.save(o, conn=c) for o, c in zip(outcomes, conns, strict=True))
    )
    assert [one for one in saved if isinstance(one, Exception)] == []
    newest = max(range(12), key=lambda number: dispatches[number].dispatch_seq)
    assert set(desk.content().values()) == {str(newest)}


SHUFFLING = ["enable_seqscan", "enable_hashjoin", "enable_mergejoin"]
SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON user_integration_content FOR EACH ROW
    WHEN (NEW.external_id = 'b' AND current_setting('test.slow', true) = 'on') EXECUTE FUNCTION
        slow();
"""


def test_writers_of_the_same_items_in_opposite_order_do_not_deadlock(
    desk, writers, connect, blocked_in
) -> None:
    """The first task waits between its two items while the second begins.

    Without a common order, each would hold the row that the other waits for.
    """
    import threading

    first, second = writers(2)
    slow, other = connect(), connect()
    for conn in (slow, other):
        # As in a large table, take the rows one after the other, in the given order. In a small
        # one, the planner's hash table has an order of its own.
        conn.execute(
            "SELECT set_config(name, 'off', false) FROM unnest(%s::text[]) AS name", (SHUFFLING,)
        )
    slow.execute("SET test.slow = 'on'")
    desk.conn.execute(SLOW)
    desk.conn.execute("SELECT pg_advisory_lock(1)")
    failed: list[Exception] = []

    def save(conn, dispatch, *ids: str) -> None:
        try:
            desk.save(desk.outcome(dispatch, output=[TaskOutput(id, id) for id in ids]), conn=conn)
        except psycopg.Error as error:
            failed.append(error)

    threads = [
        threading.Thread(target=save, args=(slow, first, "a", "b")),
        threading.Thread(target=save, args=(other, second, "b", "a")),
    ]
    for thread, conn in zip(threads, (slow, other), strict=True):
        thread.start()
        blocked_in(conn.info.backend_pid)
    desk.conn.execute("SELECT pg_advisory_unlock(1)")
    for thread in threads:
        thread.join()
    assert not failed
    assert desk.alive() == {"a", "b"}


def test_a_late_tombstone_that_waited_for_a_newer_writer_changes_nothing(
    desk, writers, connect, blocked_in
) -> None:
    import threading

    first, tombstone, download = writers(3)
    keep(desk, first, TaskOutput("a", "old"))
    newer, older = connect(), connect()
    gone = desk.outcome(tombstone, output=[TaskOutput.gone("a")])
    thread = threading.Thread(target=lambda: desk.save(gone, conn=older))
    with newer.transaction():
        desk.save(desk.outcome(download, output=[TaskOutput("a", "new")]), conn=newer)
        thread.start()
        blocked_in(older.info.backend_pid)
    thread.join()
    assert desk.content("content_text, content_seq, deleted_at") == {
        "a": ["new", download.dispatch_seq, None]
    }


def test_a_late_update_that_waited_for_a_newer_writer_changes_nothing(
    desk, writers, connect, blocked_in
) -> None:
    import threading

    first, update, download = writers(3)
    keep(desk, first, TaskOutput("a", "old", metadata={"x": 1}))
    newer, older = connect(), connect()
    late = desk.outcome(update, output=[TaskOutput.update("a", metadata={"x": 2})])
    thread = threading.Thread(target=lambda: desk.save(late, conn=older))
    with newer.transaction():
        desk.save(
            desk.outcome(download, output=[TaskOutput("a", "new", metadata={"x": 3})]), conn=newer
        )
        thread.start()
        blocked_in(older.info.backend_pid)
    thread.join()
    assert desk.content("content_text, metadata") == {"a": ["new", {"x": 3}]}


# Listings
# --------------------------------------------------------------------------------------------------


def vanished(desk, account, *, seen=(), output=(), listed=None, guard=0.5, floor=20) -> set[str]:
    """Return the items that remain after a run with this listing."""
    result = {"seen": seen, "output": output, "listed": listed or [Listing()]}
    desk.finish(desk.root(account), guard=guard, floor=floor, **result)
    return desk.alive()


def test_a_complete_listing_marks_missing_items_deleted(desk) -> None:
    account = desk.account()
    desk.keep(
        account,
        *(TaskOutput(id) for id in "abcd"),
        TaskOutput("d/x", parent="d"),
        TaskOutput("a/x", parent="a"),
    )
    assert vanished(
        desk, account, seen=["a"], output=[TaskOutput("b", "new"), TaskOutput("c")]
    ) == {
        "a",
        "a/x",
        "b",
        "c",
    }
    assert desk.value("SELECT outputs_deleted FROM sync_run ORDER BY started_at DESC LIMIT 1") == 2


def test_without_a_listing_nothing_is_deleted(desk) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("a"))
    desk.finish(desk.root(account), seen=["b"])
    assert desk.alive() == {"a"}


def test_a_listing_deletes_nothing_outside_its_scope(desk) -> None:
    account = desk.account()
    days = {
        f"d{day}": TaskOutput(f"d{day}", parent="box", timestamp=datetime(2026, 1, day, tzinfo=UTC))
        for day in (1, 2, 3)
    }
    desk.keep(
        account,
        *days.values(),
        TaskOutput("top"),
        TaskOutput("other", parent="elsewhere"),
        TaskOutput("undated", parent="box"),
    )
    window = Listing(
        "box", since=datetime(2026, 1, 2, tzinfo=UTC), until=datetime(2026, 1, 3, tzinfo=UTC)
    )
    assert vanished(desk, account, guard=1.0, listed=[window]) == {
        "d1",
        "d3",
        "top",
        "other",
        "undated",
    }


def test_items_seen_on_earlier_pages_of_the_run_stay(desk) -> None:
    account = desk.account()
    desk.keep(account, *(TaskOutput(id) for id in "abcd"))
    root = desk.root(account)
    pages = desk.add(root.run_id, "1", "2")
    first, second = desk.claim()
    assert [first.task_id, second.task_id] == pages
    desk.finish(root, seen=["a"])
    desk.finish(first, output=[TaskOutput("b")])
    desk.finish(second, seen=["c"], listed=[Listing()])
    assert desk.alive() == {"a", "b", "c"}
    assert desk.runs() == ["succeeded", "succeeded"]
    assert desk.rows("SELECT * FROM sync_seen") == []


def test_items_that_any_task_wrote_since_the_run_began_stay(desk) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("old"), TaskOutput("kept"))
    root = desk.root(account)
    desk.finish(root, tasks=[Task("step"), Task("page", background=True)])
    dispatches = {dispatch.lane: dispatch for dispatch in desk.claim()}
    desk.finish(
        dispatches["backfill"],
        output=[TaskOutput("history"), TaskOutput.update("old", metadata={"x": 1})],
    )
    desk.finish(dispatches["live"], seen=["kept"], listed=[Listing()])
    assert desk.alive() == {"old", "kept", "history"}


@pytest.mark.parametrize("named", [False, True], ids=["not seen", "seen"])
@pytest.mark.parametrize("dispatched", list(itertools.permutations(["page", "step"])))
@pytest.mark.parametrize("saved", list(itertools.permutations(["page", "step"])))
def test_an_item_that_a_download_returns_stays_in_any_order(
    desk, dispatched, saved, named: bool
) -> None:
    """The root lists x only by the step that downloads it; the page completes the listing."""
    account = desk.account()
    desk.keep(account, *(TaskOutput(id, "old") for id in "xyz"))
    root = desk.root(account)
    desk.finish(
        root, tasks=[Task(name) for name in dispatched], seen=["y", *(["x"] if named else [])]
    )
    running = {}
    for name, other in (dispatched, dispatched[::-1]):
        (running[name],) = desk.claim(TaskPortion(str(account), "live", 1, without_types=[other]))
    for name in saved:
        if name == "page":
            desk.finish(running["page"], guard=1.0, seen=["z"], listed=[Listing()])
            assert not named or desk.alive() == set("xyz")
        else:
            desk.finish(running["step"], output=[TaskOutput("x", "new")])
    assert desk.content(where="deleted_at IS NULL") == {"x": "new", "y": "old", "z": "old"}


@pytest.mark.parametrize("saved", list(itertools.permutations(["page", "step"])))
def test_an_item_that_moved_between_listings_stays_in_any_order(desk, saved) -> None:
    """The page completes the folder that x has left, the step the one where it is now."""
    account = desk.account()
    desk.keep(
        account,
        *(TaskOutput(id) for id in "ab"),
        *(TaskOutput(id, "old", parent="a") for id in "xy"),
    )
    desk.finish(desk.root(account), tasks=[Task("page"), Task("step")], seen=["a", "b"])
    results = {
        "page": {"seen": ["y"], "listed": [Listing("a")]},
        "step": {"output": [TaskOutput("x", "old", parent="b")], "listed": [Listing("b")]},
    }
    running = {}
    (running["page"],) = desk.claim(TaskPortion(str(account), "live", 1, without_types=["step"]))
    (running["step"],) = desk.claim()
    for name in saved:
        desk.finish(running[name], guard=1.0, **results[name])
    assert desk.alive() == set("abxy")
    assert desk.value("SELECT parent FROM user_integration_content WHERE external_id = 'x'") == "b"


def test_a_sweep_keeps_a_descendant_that_its_run_wrote(desk) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("d"), TaskOutput("d/x", "old", parent="d"), TaskOutput("a"))
    root = desk.root(account)
    desk.finish(root, tasks=[Task("step"), Task("page")], seen=["a"])
    (file,) = desk.claim(TaskPortion(str(account), "live", 1, without_types=["page"]))
    (page,) = desk.claim()
    desk.finish(file, output=[TaskOutput("d/x", "new", parent="d")])
    desk.finish(page, guard=1.0, listed=[Listing()])
    assert desk.alive() == {"a", "d/x"}


def test_a_listing_that_loses_more_than_the_guard_allows_is_held(desk) -> None:
    account = desk.account()
    desk.keep(account, *(TaskOutput(id) for id in "abcd"))
    assert vanished(desk, account, seen=["a"], floor=3) == set("abcd")
    assert desk.rows("SELECT vanished, total, parent FROM held_deletion") == [(3, 4, None)]
    assert vanished(desk, account, seen=["a"], floor=3) == set("abcd")
    assert desk.value("SELECT count(*) FROM held_deletion") == 1
    assert vanished(desk, account, seen=["a"], guard=1.0) == {"a"}
    assert desk.value("SELECT count(*) FROM held_deletion") == 0


def test_a_later_complete_listing_drops_held_deletions(desk) -> None:
    account = desk.account()
    desk.keep(account, *(TaskOutput(id) for id in "abcd"))
    vanished(desk, account)
    assert vanished(desk, account, seen="abcd") == set("abcd")
    assert desk.value("SELECT count(*) FROM held_deletion") == 0


def test_fewer_deletions_than_the_floor_are_done(desk) -> None:
    account = desk.account()
    desk.keep(account, *(TaskOutput(id) for id in "abcd"))
    assert vanished(desk, account, seen=["a"], floor=4) == {"a"}


def test_a_rolling_export_of_one_file_follows_its_source(desk) -> None:
    """The new file counts as live before a task has fetched it."""
    account = desk.account()
    desk.keep(account, TaskOutput("monday"))
    assert vanished(desk, account, seen=["tuesday"]) == set()
    desk.keep(account, TaskOutput("tuesday"))
    assert vanished(desk, account, output=[TaskOutput("wednesday")]) == {"wednesday"}


def test_the_last_items_of_an_account_are_held(desk) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("d"), TaskOutput("d/x", parent="d"))
    assert vanished(desk, account) == {"d", "d/x"}
    assert desk.rows("SELECT vanished, total, source, state FROM held_deletion") == [
        (2, 2, "listing", "held")
    ]
    assert desk.rows("SELECT external_id FROM held_deletion_item ORDER BY 1") == [("d",), ("d/x",)]
    assert desk.value("SELECT deletions_held FROM sync_run ORDER BY started_at DESC LIMIT 1") == 2


def test_items_elsewhere_in_the_account_let_the_last_items_of_a_listing_go(desk) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("a"), TaskOutput("b", parent="box"))
    assert vanished(desk, account) == {"b"}


def test_the_share_counts_descendants(desk) -> None:
    account = desk.account()
    files = [TaskOutput(f"p/{number}", parent="p") for number in range(40)]
    desk.keep(account, TaskOutput("p"), *files, *(TaskOutput(id) for id in "abcde"))
    assert len(vanished(desk, account, seen="abcde")) == 46
    assert desk.rows("SELECT vanished, total FROM held_deletion") == [(41, 46)]
    assert vanished(desk, account, seen="abcde", guard=1.0) == set("abcde")


def test_the_share_of_a_window_counts_only_its_items(desk) -> None:
    account = desk.account()
    day = datetime(2026, 1, 1, tzinfo=UTC)
    recent = [TaskOutput(f"r{number}", timestamp=day) for number in range(30)]
    older = [TaskOutput(f"o{number}", timestamp=day - timedelta(1)) for number in range(30)]
    desk.keep(account, *recent, *older)
    seen = [f"r{number}" for number in range(10)]
    assert len(vanished(desk, account, seen=seen, listed=[Listing(since=day)])) == 60
    assert desk.rows("SELECT vanished, total FROM held_deletion") == [(20, 30)]


def test_single_deletions_of_a_run_count_together(desk) -> None:
    account = desk.account()
    desk.keep(account, *(TaskOutput(str(number)) for number in range(40)))
    root = desk.root(account)
    desk.add(root.run_id, "1", "2", "3")
    first, second, third = desk.claim()

    def gone(start: int, stop: int) -> list[TaskOutput]:
        return [TaskOutput.gone(str(number)) for number in range(start, stop)]

    desk.save(desk.outcome(root, output=gone(0, 19)), desk.outcome(first, output=gone(19, 20)))
    assert len(desk.alive()) == 20
    desk.finish(second, output=gone(20, 21))
    assert len(desk.alive()) == 20
    assert desk.rows("SELECT vanished, total, source FROM held_deletion") == [(1, 40, "gone")]
    desk.finish(third)
    assert desk.value("SELECT deletions_held FROM sync_run ORDER BY started_at DESC LIMIT 1") == 1
    desk.finish(desk.root(account), output=gone(20, 39))
    assert desk.alive() == {"20", "39"}, "what waits for a decision stays"


def test_single_deletions_that_a_person_accepted_are_done(desk, backend) -> None:
    from core.service.content import deletions

    account = desk.account()
    desk.keep(account, *(TaskOutput(str(number)) for number in range(30)))
    gone = [TaskOutput.gone(str(number)) for number in range(25)]
    desk.finish(desk.root(account), output=gone)
    assert len(desk.alive()) == 30
    deletions.accept(backend, [desk.value("SELECT id FROM held_deletion")])
    (root,) = desk.claim()
    desk.finish(root, output=[*gone[:20], TaskOutput("24", "again")])
    assert len(desk.alive()) == 10
    assert desk.rows("SELECT state, vanished FROM held_deletion") == [("held", 4)]


@pytest.mark.parametrize("change", ["config = '{\"x\": 1}'", "identity = 'another'"])
def test_a_listing_under_another_config_or_identity_deletes_nothing(desk, change: str) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("a"), TaskOutput("b"))
    root = desk.root(account)
    desk.conn.execute(f"UPDATE user_integration SET {change} WHERE id = %s", (account,))
    desk.finish(root, seen=["a"], listed=[Listing()])
    assert desk.alive() == {"a", "b"}
    desk.finish(desk.root(account), seen=["a"], listed=[Listing()])
    assert desk.alive() == {"a"}


def test_new_credentials_and_limits_do_not_stop_a_sweep(desk) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("a"), TaskOutput("b"))
    root = desk.root(account)
    desk.conn.execute(
        "UPDATE user_integration SET version = version + 1, credentials = 'new',"
        " config = config, limits = '[{}]' WHERE id = %s",
        (account,),
    )
    desk.finish(root, seen=["a"], listed=[Listing()])
    assert desk.alive() == {"a"}


def test_exactly_the_share_of_the_guard_may_be_deleted(desk) -> None:
    account = desk.account()
    desk.keep(account, *(TaskOutput(id) for id in "abcd"))
    assert vanished(desk, account, seen=["a", "b"], floor=0) == {"a", "b"}


def test_a_page_that_was_parked_never_sweeps(desk) -> None:
    from core.ledger.outcomes import parked

    account = desk.account()
    desk.keep(account, *(TaskOutput(id) for id in "abcd"))
    root = desk.root(account)
    desk.save(parked(desk.outcome(root, listed=[Listing()]), "no"), guard=1.0)
    assert desk.alive() == set("abcd")


PAGE = Task("page", {"number": 2})


def cancelled_after_a_page(desk, account, page: Task = PAGE):
    """Cancel a run before its last page, and return the dispatches of the next run.

    The cancelled run has kept and seen items. The next run has that page and a root.
    """
    desk.keep(account, *(TaskOutput(id) for id in "abcd"))
    root = desk.root(account)
    desk.finish(root, seen=["a", "b"], tasks=[page])
    controls.cancel_run(desk.conn, UUID(root.run_id))
    desk.run(account)
    dispatches = {dispatch.type: dispatch for dispatch in desk.claim()}
    assert sorted(dispatches) == ["page", "start"]
    return dispatches


def test_a_page_carried_over_from_a_cancelled_run_deletes_nothing(desk) -> None:
    """It completes a listing of which its own run has seen the end only."""
    dispatches = cancelled_after_a_page(desk, desk.account())
    desk.finish(dispatches["page"], guard=1.0, seen=["c"], listed=[Listing()])
    assert desk.alive() == set("abcd")
    assert desk.value("SELECT count(*) FROM held_deletion") == 0
    desk.finish(dispatches["start"], guard=1.0, seen=["a", "b", "c"], listed=[Listing()])
    assert desk.alive() == set("abc")


def test_a_page_that_follows_a_carried_page_deletes_nothing(desk) -> None:
    dispatches = cancelled_after_a_page(desk, desk.account())
    desk.finish(dispatches["page"], seen=["c"], tasks=[Task("page", {"number": 3})])
    (after,) = desk.claim()
    desk.finish(after, guard=1.0, seen=["d"], listed=[Listing()])
    assert desk.alive() == set("abcd")


@pytest.mark.parametrize("payload", [{"number": 2}, {"number": 2, "token": "new"}])
def test_a_page_that_a_carried_one_has_read_is_listed_again(desk, payload) -> None:
    """The later run lists everything again, and ends with a page that it has already."""
    dispatches = cancelled_after_a_page(desk, desk.account(), Task("page", {"number": 2}, key="2"))
    carried = desk.outcome(dispatches["page"], seen=["c"], listed=[Listing()])
    first = desk.outcome(
        dispatches["start"], tasks=[Task("page", payload, key="2")], seen=["a", "b"]
    )
    desk.save(carried, guard=1.0)
    desk.save(first)
    (again,) = desk.claim()
    assert again.payload == payload
    itself = Task("page", payload, key="2")
    desk.finish(again, guard=1.0, seen=["c"], listed=[Listing()], tasks=[itself])
    assert desk.alive() == set("abc")
    assert desk.runs() == ["succeeded", "cancelled", "succeeded"]


def test_a_page_is_listed_again_if_one_transaction_saves_both(desk) -> None:
    dispatches = cancelled_after_a_page(desk, desk.account())
    carried = desk.outcome(dispatches["page"], seen=["c"], listed=[Listing()])
    first = desk.outcome(dispatches["start"], tasks=[PAGE], seen=["a", "b"])
    desk.save(carried, first, guard=1.0)
    (again,) = desk.claim()
    desk.finish(again, guard=1.0, seen=["c"], listed=[Listing()])
    assert desk.alive() == set("abc")


def test_a_carried_page_that_the_run_lists_too_compares(desk) -> None:
    """It waits when the run comes to it, and so it runs once."""
    dispatches = cancelled_after_a_page(desk, desk.account())
    leases.release(desk.conn, [dispatches["page"].lease])
    desk.save(desk.outcome(dispatches["start"], tasks=[PAGE], seen=["a", "b"]))
    (page,) = desk.claim()
    desk.finish(page, guard=1.0, seen=["c"], listed=[Listing()])
    assert desk.alive() == set("abc")
    assert desk.runs() == ["succeeded", "cancelled", "succeeded"]


@pytest.mark.parametrize("number", [2, 3])
def test_a_carried_page_that_may_list_other_items_compares_nothing(desk, number: int) -> None:
    """It may have begun before the first page, or its pages begin and end elsewhere."""
    dispatches = cancelled_after_a_page(desk, desk.account(), Task("page", {"number": 2}, key="2"))
    if number != 2:
        leases.release(desk.conn, [dispatches["page"].lease])
    first = [Task("page", {"number": number}, key="2")]
    desk.save(desk.outcome(dispatches["start"], tasks=first, seen=["a", "b"]))
    claimed = {each.task_id: each for each in [dispatches["page"], *desk.claim()]}
    carried = claimed.pop(dispatches["page"].task_id)
    desk.save(desk.outcome(carried, listed=[Listing()]), guard=1.0)
    assert desk.alive() == set("abcd")
    (again,) = claimed.values()
    desk.finish(again, guard=1.0, seen=["c"], listed=[Listing()])
    assert desk.alive() == set("abc")


def test_a_page_that_is_retried_within_its_run_compares(desk) -> None:
    account = desk.account()
    desk.keep(account, *(TaskOutput(id) for id in "abcd"))
    root = desk.root(account)
    desk.finish(root, seen=["a", "b"], tasks=[PAGE, Task("step")])
    page = next(each for each in desk.claim() if each.type == "page")
    desk.save(Outcome(page, state="parked", reason="r", error="e", attempt=1))
    controls.retry(desk.conn, [page.task_id])
    (copy,) = desk.claim()
    desk.finish(copy, guard=1.0, seen=["c"], listed=[Listing()])
    assert desk.alive() == set("abc")


def test_an_item_that_a_slow_task_of_another_run_keeps_stays(desk) -> None:
    """Its sequence is smaller than that of the listing's run."""
    account = desk.account()
    desk.keep(account, TaskOutput("kept"), TaskOutput("vanished"))
    desk.finish(desk.root(account), tasks=[Task("page", background=True)])
    (slow,) = desk.claim()
    assert slow.lane == "backfill"
    listing = desk.root(account)
    desk.finish(slow, output=[TaskOutput("history")])
    desk.finish(listing, guard=1.0, seen=["kept"], listed=[Listing()])
    assert desk.alive() == {"kept", "history"}


def test_a_result_may_delete_a_folder_and_keep_a_file_in_it(desk, writers) -> None:
    first, second = writers(2)
    keep(
        desk,
        first,
        TaskOutput("p"),
        TaskOutput("p/old", parent="p"),
        TaskOutput("p/kept", "1", parent="p"),
    )
    keep(
        desk,
        second,
        TaskOutput.gone("p"),
        TaskOutput("p/kept", "1", parent="p"),
        TaskOutput("p/new", parent="p"),
    )
    assert desk.alive() == {"p/kept", "p/new"}
