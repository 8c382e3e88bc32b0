"""Sweeps of large listings: they run in portions, each a task of its run."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from uuid import UUID

import pytest

from core import Listing, TaskOutput
from core.accounts import store as store_accounts
from core.content import holds, portions, store
from core.ledger import completion, controls
from core.ledger.outcomes import Outcome
from core.service.content import deletions
from core.states import Deletions
from core.worker.runner import Runner
from core.worker.saver import MAX_BATCH_ROWS

SMALL = 10
DELETED = "SELECT count(*) FROM user_integration_content WHERE deleted_at IS NOT NULL"


@pytest.fixture(autouse=True)
def small_portions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("long"):
        return
    monkeypatch.setattr(holds, "PORTION", SMALL)
    monkeypatch.setattr(portions, "PORTION", SMALL)
    monkeypatch.setattr(portions, "MAX_FRAMES", 2)
    monkeypatch.setattr(store, "PORTION", SMALL)


def tree(folders: int, files: int) -> list[TaskOutput]:
    """Return folders with files, and a folder in the first one."""
    outputs = [TaskOutput(f"f{folder}") for folder in range(folders)]
    outputs += [
        TaskOutput(f"f{folder}/{file}", parent=f"f{folder}")
        for folder in range(folders)
        for file in range(files)
    ]
    outputs += [TaskOutput("f0/sub", parent="f0"), TaskOutput("f0/sub/x", parent="f0/sub")]
    return outputs


def numbered(count: int) -> list[TaskOutput]:
    return [TaskOutput(f"{number:02}") for number in range(count)]


def steps(desk, guard: float = 0.5, most: int = 1000) -> int:
    """Run the tasks of a sweep until none is left; return their number."""
    for count in range(most):
        claimed = desk.claim()
        if not claimed:
            return count
        for dispatch in claimed:
            assert dispatch.type == portions.SWEEP
            before = desk.value(DELETED)
            desk.save(Outcome(dispatch), guard=guard)
            assert desk.value(DELETED) - before <= SMALL
            completion.end_runs(desk.conn, {dispatch.run_id})
    return most


def latest(desk, column: str) -> int:
    return desk.value(f"SELECT {column} FROM sync_run ORDER BY started_at DESC LIMIT 1")


def test_a_large_sweep_deletes_in_portions_all_that_is_missing(desk) -> None:
    account = desk.account()
    kept = [f"k{number}" for number in range(90)]
    desk.keep(account, *tree(15, 4), *map(TaskOutput, kept))
    desk.finish(desk.root(account), seen=[*kept, "f14"], listed=[Listing()])
    assert desk.value(DELETED) == 0
    assert steps(desk) > 7
    assert desk.alive() == {*kept, "f14", *(f"f14/{file}" for file in range(4))}
    assert desk.runs() == ["succeeded", "succeeded"]
    assert latest(desk, "outputs_deleted") == 72
    assert desk.rows("SELECT * FROM held_deletion") == []


def test_a_large_sweep_above_the_share_is_held_with_its_items(desk) -> None:
    account = desk.account()
    desk.keep(account, *tree(15, 4), TaskOutput("k"))
    desk.finish(desk.root(account), seen=["k"], listed=[Listing()])
    assert steps(desk) > 7
    assert len(desk.alive()) == 78
    assert desk.rows("SELECT state, vanished, total FROM held_deletion") == [("held", 77, 78)]
    items = {id for (id,) in desk.rows("SELECT external_id FROM held_deletion_item")}
    assert items == desk.alive() - {"k"}
    assert latest(desk, "deletions_held") == 77


def test_a_large_listing_that_lost_nothing_leaves_nothing(desk) -> None:
    account = desk.account()
    desk.keep(account, *tree(15, 1))
    desk.finish(desk.root(account), seen=[f"f{n}" for n in range(15)], listed=[Listing()])
    assert steps(desk) == 2
    assert (len(desk.alive()), desk.rows("SELECT * FROM held_deletion")) == (32, [])


def test_a_large_folder_in_a_small_listing_goes_in_portions(desk) -> None:
    account = desk.account()
    below = [TaskOutput(f"k/{number}", parent="k") for number in range(60)]
    desk.keep(account, *tree(1, 30), *below)
    desk.finish(desk.root(account), output=[TaskOutput("k")], listed=[Listing()])
    assert steps(desk) > 3
    assert desk.alive() == {"k", *(f"k/{number}" for number in range(60))}


def test_each_portion_asks_again_for_missing_items(desk) -> None:
    account = desk.account()
    desk.keep(account, *numbered(30))
    root = desk.root(account)
    desk.finish(root, listed=[Listing()])
    assert steps(desk, guard=1.0, most=5) == 5
    assert 0 < desk.value(DELETED) < 30
    desk.conn.execute("INSERT INTO sync_seen VALUES (%s, '29')", (root.run_id,))
    steps(desk, guard=1.0)
    assert desk.alive() == {"29"}


def test_a_late_step_deletes_nothing(desk) -> None:
    account = desk.account()
    desk.keep(account, *numbered(30))
    desk.finish(desk.root(account), listed=[Listing()])
    steps(desk, guard=1.0, most=4)
    (late,) = desk.claim()
    assert desk.save(Outcome(late), guard=1.0).applied
    deleted = desk.value(DELETED)
    assert not desk.save(Outcome(late), guard=1.0).applied
    assert desk.value(DELETED) == deleted > 0


def test_a_cancelled_sweep_deletes_nothing_more(desk) -> None:
    account = desk.account()
    desk.keep(account, *numbered(30))
    root = desk.root(account)
    desk.finish(root, listed=[Listing()])
    controls.cancel_run(desk.conn, UUID(root.run_id))
    desk.run(account)
    carried = {one.type: one for one in desk.claim()}
    desk.save(Outcome(carried[portions.SWEEP]), guard=1.0)
    assert len(desk.alive()) == 30
    assert desk.rows("SELECT * FROM held_deletion") == []


def test_a_sweep_under_another_config_stops(desk) -> None:
    account = desk.account()
    desk.keep(account, *numbered(30))
    desk.finish(desk.root(account), listed=[Listing()])
    desk.conn.execute("UPDATE user_integration SET config = '{\"x\": 1}'")
    assert steps(desk, guard=1.0) == 1
    assert len(desk.alive()) == 30


def test_a_worker_runs_a_step_without_the_plugin_and_saves_it_alone(desk) -> None:
    account = desk.account()
    desk.keep(account, *numbered(30))
    desk.finish(desk.root(account), listed=[Listing()])
    (dispatch,) = desk.claim()
    outcome = Runner(None, None, None).run(dispatch)  # type: ignore[arg-type]
    assert outcome == Outcome(dispatch)
    assert outcome.rows >= MAX_BATCH_ROWS


def test_what_is_below_an_item_that_came_back_stays(desk) -> None:
    account = desk.account()
    desk.keep(account, *tree(15, 4))
    root = desk.root(account)
    desk.finish(root, listed=[Listing()])
    while desk.value("SELECT count(*) FROM held_deletion WHERE state = 'deleting'") == 0:
        steps(desk, guard=1.0, most=1)
    desk.add(UUID(root.run_id), "download")
    claimed = {one.type: one for one in desk.claim()}
    output = [TaskOutput("f9", "came back"), TaskOutput("f8", parent="elsewhere")]
    desk.save(desk.outcome(claimed["step"], output=output))
    desk.save(Outcome(claimed[portions.SWEEP]), guard=1.0)
    steps(desk, guard=1.0)
    assert desk.alive() == {f"f{n}{file}" for n in (8, 9) for file in ("", "/0", "/1", "/2", "/3")}


def test_a_deletion_ends_where_the_parent_comes_back(desk) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("d"), *(TaskOutput(f"{n}", parent="d") for n in range(30)))
    root = desk.root(account)
    desk.finish(root, listed=[Listing()])
    while not desk.value(DELETED):
        steps(desk, guard=1.0, most=1)
    desk.add(UUID(root.run_id), "download")
    claimed = {one.type: one for one in desk.claim()}
    desk.save(desk.outcome(claimed["step"], output=[TaskOutput("d", "came back")]))
    before = desk.alive()
    desk.save(Outcome(claimed[portions.SWEEP]), guard=1.0)
    steps(desk, guard=1.0)
    assert desk.alive() == before > {"d"}


def test_a_loop_of_parents_is_counted_once(desk) -> None:
    account = desk.account()
    desk.keep(account, *(TaskOutput(one.id, parent="a") for one in numbered(29)))
    desk.keep(account, TaskOutput("a", parent="b"), TaskOutput("b", parent="a"))
    desk.finish(desk.root(account), seen=["b"], listed=[Listing("a")])
    assert steps(desk, most=60) < 60
    assert desk.rows("SELECT state, vanished, total FROM held_deletion") == [("held", 29, 31)]


def test_a_loop_of_parents_goes_once(desk) -> None:
    account = desk.account()
    desk.keep(account, *(TaskOutput(one.id, parent="a") for one in numbered(29)))
    desk.keep(account, TaskOutput("a", parent="b"), TaskOutput("b", parent="a"), TaskOutput("z"))
    desk.finish(desk.root(account), listed=[Listing("a")])
    assert steps(desk, guard=1.0, most=60) < 60
    assert desk.alive() == {"z"}
    assert latest(desk, "outputs_deleted") == 31


def test_a_sweep_that_deletes_finishes_below_what_it_deleted(desk) -> None:
    account = desk.account()
    desk.keep(account, *tree(4, 20))
    root = desk.root(account)
    desk.finish(root, listed=[Listing()])
    while not desk.value(DELETED):
        steps(desk, guard=1.0, most=1)
    controls.cancel_run(desk.conn, UUID(root.run_id))
    holds.prune(desk.conn)
    desk.run(account)
    (sweep,) = (one for one in desk.claim() if one.type == portions.SWEEP)
    desk.save(Outcome(sweep), guard=1.0)
    steps_of_sweeps(desk)
    gone = set(desk.content(where="deleted_at IS NOT NULL"))
    assert not {id for id in desk.alive() if id.rpartition("/")[0] in gone}
    assert desk.alive() != set()


def steps_of_sweeps(desk) -> None:
    while sweeps := [one for one in desk.claim() if one.type == portions.SWEEP]:
        for one in sweeps:
            desk.save(Outcome(one), guard=1.0)


def delete_folder(desk, *names: str, folder: int = 40) -> None:
    """Keep two folders of items, and delete items by their names."""
    account = desk.account()
    inside = [TaskOutput(f"d{n}/{k}", parent=f"d{n}") for n in (0, 1) for k in range(folder)]
    desk.keep(account, TaskOutput("d0"), TaskOutput("d1"), *inside)
    desk.finish(desk.root(account), output=[TaskOutput.gone(name) for name in names])


def test_a_deleted_folder_goes_in_portions(desk) -> None:
    delete_folder(desk, "d0", "unknown")
    assert desk.value(DELETED) == 1  # the unknown one
    assert steps(desk, guard=0.6) > 4
    assert desk.alive() == {"d1", *(f"d1/{k}" for k in range(40))}
    assert latest(desk, "outputs_deleted") == 41
    assert desk.value("SELECT sum(outputs_gone) FROM sync_task") == 41
    assert desk.rows("SELECT * FROM held_deletion") == []


def test_large_deletions_of_a_run_count_together(desk) -> None:
    delete_folder(desk, *(f"d0/{k}" for k in range(12)), "d1")
    steps(desk)
    ((source, state, vanished),) = desk.rows("SELECT source, state, vanished FROM held_deletion")
    assert (source, state, vanished) == ("gone", "held", 41)
    assert len(desk.alive()) == 70
    assert latest(desk, "deletions_held") == 41


def test_a_large_deletion_is_confirmed(desk, backend) -> None:
    delete_folder(desk, "d0", "d1")
    steps(desk)
    deletions.accept(backend, [desk.value("SELECT id FROM held_deletion")])
    (root,) = desk.claim()
    new = TaskOutput("d0/new", parent="d0")
    desk.finish(root, output=[TaskOutput.gone("d0"), TaskOutput.gone("d1"), new])
    steps(desk)
    assert desk.alive() == {"d0/new"}


def test_a_large_deletion_of_an_account_that_keeps_items(desk) -> None:
    account = desk.account()
    store_accounts.set_deletions(desk.conn, account, Deletions.KEEP)
    desk.keep(account, TaskOutput("d"), *(TaskOutput(f"{n}", parent="d") for n in range(30)))
    desk.finish(desk.root(account), output=[TaskOutput.gone("d")])
    assert steps(desk) > 2
    assert desk.content(where="gone_at_source IS NULL") == {}
    assert len(desk.alive()) == 31


def test_a_large_held_deletion_is_released_and_dropped_in_portions(desk) -> None:
    account = held_tree(desk)
    first = desk.value("SELECT id FROM held_deletion")
    desk.finish(desk.root(account), seen=[f"f{n}" for n in range(10)])
    assert desk.rows("SELECT id, vanished FROM held_deletion") == [(first, 67)]
    everything = [*(f"f{n}" for n in range(15)), "k"]
    desk.finish(desk.root(account), seen=everything, listed=[Listing()])
    steps(desk)
    assert list(deletions.deletions.pages(desk.conn)) == []
    holds.prune(desk.conn)
    assert desk.rows("SELECT * FROM held_deletion") == []


MILLION = """
INSERT INTO user_integration_content (
    user_integration_id, integration_domain, external_id, kind, parent, digest, content_seq,
    metadata_seq, updated_at)
SELECT %s, 'shop', 'a folder/a file with a longer name ' || n, 'file',
    CASE WHEN n % 2 = 0 THEN 'folder' END, '', 0, 0, now() - interval '1 day'
FROM generate_series(1, 1000000) n
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_million_items_go_in_short_transactions(desk) -> None:
    """No transaction may take over 0.3 s; the assertion leaves room for a shared machine."""
    account = desk.account()
    desk.keep(account, TaskOutput("folder"), TaskOutput("kept"))
    desk.conn.execute(MILLION.replace("n % 2", "n %% 2"), (account,))
    desk.conn.execute("VACUUM ANALYZE user_integration_content")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = [timed(lambda: desk.finish(desk.root(account), guard=1.0, listed=[Listing()]))]
    while claimed := desk.claim():
        (dispatch,) = claimed
        outcome = Outcome(dispatch)
        times.append(timed(lambda outcome=outcome: desk.save(outcome, guard=1.0)))
    times.sort()
    print(
        f"{len(times)} transactions, {sum(times):.1f} s, median {times[len(times) // 2]:.3f} s,"
        f" longest {times[-5:]}, {latest(desk, 'start_seq')}"
    )
    assert desk.alive() == set()
    assert times[-1] < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_million_items_are_held_released_and_dropped_in_short_transactions(desk) -> None:
    """Each statement on a large held deletion reads one portion."""
    account = desk.account()
    desk.keep(account, TaskOutput("folder"), TaskOutput("kept"))
    desk.conn.execute(MILLION.replace("n % 2", "n %% 2"), (account,))
    desk.conn.execute("VACUUM ANALYZE user_integration_content")
    times = [timed(lambda: desk.finish(desk.root(account), seen=["kept"], listed=[Listing()]))]
    longest: dict[str, float] = {}
    while claimed := desk.claim():
        (dispatch,) = claimed
        outcome = Outcome(dispatch)
        times.append(timed(lambda outcome=outcome: desk.save(outcome)))
        phase = dispatch.payload["phase"]
        longest[phase] = max(longest.get(phase, 0.0), times[-1])
    assert desk.value("SELECT vanished FROM held_deletion WHERE state = 'held'") == 1_000_001
    hold = desk.value("SELECT id FROM held_deletion")
    given = {"account": account, "run": dispatch.run_id, "start": 1 << 40, "hold": hold}
    steps, after = [], ""
    while ids := holds.next_items(desk.conn, hold, after):
        call = {**given, "ids": ids}
        steps.append(timed(lambda call=call: desk.conn.execute(holds.RELEASE, call)))
        after = ids[-1]
    dropped = timed(lambda: holds.discard(desk.conn, hold))
    pruned = timed(lambda: holds.prune(desk.conn))
    times.sort()
    steps.sort()
    print(
        f"held in {len(times)}, longest {longest}; released in {len(steps)}, longest"
        f" {steps[-5:]}; dropped in {dropped:.3f} s, pruned in {pruned:.1f} s"
    )
    assert max(times[-1], steps[-1], dropped) < 1.0
    assert desk.rows("SELECT * FROM held_deletion") == []


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def held_tree(desk) -> UUID:
    """Return an account whose large listing lacks 77 of 78 items: the guard holds them."""
    account = desk.account()
    desk.keep(account, *tree(15, 4), TaskOutput("k"))
    desk.finish(desk.root(account), seen=["k"], listed=[Listing()])
    steps(desk)
    return account


def test_a_large_held_deletion_is_confirmed_in_portions(desk, backend) -> None:
    account = held_tree(desk)
    desk.keep(account, TaskOutput("f1/new", parent="f1"), TaskOutput("new"))
    deletions.accept(backend, [desk.value("SELECT id FROM held_deletion")])
    (root,) = desk.claim()
    seen = {"k", "f14", *(f"f14/{file}" for file in range(4))}
    desk.finish(root, seen=seen, listed=[Listing()])
    steps(desk)
    assert desk.alive() == {*seen, "new", "f1/new"}
    assert latest(desk, "outputs_deleted") == 72
    ((state, vanished),) = desk.rows("SELECT state, vanished FROM held_deletion")
    items = {id for (id,) in desk.rows("SELECT external_id FROM held_deletion_item")}
    assert (state, vanished) == ("held", len(items))
    assert {"new", "f1/new"} <= items
    assert "k" not in items


def test_a_large_refused_deletion_stays(desk, backend) -> None:
    account = held_tree(desk)
    deletions.refuse(backend, [desk.value("SELECT id FROM held_deletion")])
    desk.keep(account, *numbered(30))
    desk.finish(desk.root(account), seen=["k", *(f"{n:02}" for n in range(25))], listed=[Listing()])
    steps(desk)
    assert len(desk.alive()) == 78 + 25
    assert desk.rows("SELECT state, vanished FROM held_deletion") == [("refused", 77)]


def test_a_large_listing_of_an_account_that_keeps_items_holds_nothing(desk) -> None:
    account = desk.account()
    store_accounts.set_deletions(desk.conn, account, Deletions.KEEP)
    desk.keep(account, *tree(15, 4), TaskOutput("k"))
    for _ in range(2):
        desk.finish(desk.root(account), seen=["k"], listed=[Listing()])
        steps(desk)
        assert set(desk.content(where="gone_at_source IS NULL")) == {"k"}
        assert len(desk.alive()) == 78
        assert desk.rows("SELECT * FROM held_deletion") == []
        assert latest(desk, "outputs_deleted") == 0
