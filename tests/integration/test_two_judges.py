"""The engine and the kit judge alike.

For each result and exception of a task, the worker with its saver and PostgreSQL does the same as
`core.testing.Harness`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.judges import Engine, Kit, Verdict
from support.odd_results import DEEDS, EFFECTS, KEPT, PARKED, PLAIN_DEEDS, WAITS, Bare, Deed

from core import Listing, TaskOutput, TaskResult
from core.results.delete_guard import DeleteGuard
from core.states import Deletions

BEFORE = Deed(lambda: TaskResult([TaskOutput("b", "before")]))
"""A deed that keeps an item before the named deed runs."""


@pytest.fixture
def engine(desk, database, queues, vault, blobs) -> Engine:
    return Engine(desk, database, queues, vault, blobs)


def both(engine: Engine, *deeds: Deed, holds: bool = True, **account: Any) -> Verdict:
    """Return the verdict on the last deed, after both have agreed on each.

    Args:
      engine: The engine.
      *deeds: The deeds.
      holds: True to compare the numbers of held listings too.
      **account: The arguments of `judge`.
    """
    theirs, ours = engine.judge(deeds, **account), Kit().judge(deeds, **account)
    for deed, one, other in zip(deeds, theirs, ours, strict=True):
        assert one == other, deed
        assert not holds or one.held == other.held, deed
        assert_same_wait(one, other)
        assert_same_failing(one, other)
    return theirs[-1]


def assert_same_wait(engine: Verdict, kit: Verdict) -> None:
    """Assert that the kit's wait is the longest that the engine can draw."""
    if kit.wait is not None and kit.stopped is None:
        assert engine.wait is not None
        assert engine.wait <= kit.wait * 1.05
        assert engine.wait >= kit.wait / 2 - 1 or kit.attempts, "only a retry is drawn from 0"


def assert_same_failing(engine: Verdict, kit: Verdict) -> None:
    """Assert that the task has failed for the same time. The engine draws the end of its wait."""
    assert (engine.failing is None) == (kit.failing is None)
    if engine.failing is not None and kit.failing is not None:
        assert abs(engine.failing - kit.failing) < 10 + 0.06 * (kit.wait or 0)


@pytest.mark.parametrize("name", PARKED)
def test_both_park_the_task_and_keep_nothing_of_its_result(engine: Engine, name: str) -> None:
    verdict = both(engine, BEFORE, Deed(PARKED[name], name=name))
    assert (verdict.state, list(verdict.content), verdict.states) == ("parked", ["b"], {})


@pytest.mark.parametrize("name", KEPT)
def test_both_keep_the_same_content(engine: Engine, name: str) -> None:
    verdict = both(engine, BEFORE, Deed(KEPT[name], name=name))
    assert verdict.state == "done"
    assert set(verdict.content) >= {"b"}


@pytest.mark.parametrize("name", WAITS)
def test_both_wait_for_the_same_time(engine: Engine, name: str) -> None:
    make, seconds = WAITS[name]
    deed = Deed(make, name=name)
    assert both(engine, deed).state == "ready"
    (kit,) = Kit().judge([deed])
    assert kit.wait == seconds


def shows(*outputs: TaskOutput, seen: Sequence[str] = (), listed: Sequence[Listing] = ()) -> Deed:
    return Deed(lambda: TaskResult(outputs, seen=seen, listed=listed))


ITSELF = shows(TaskOutput("a", parent="a"))
LOOP = shows(TaskOutput("a", parent="b"), TaskOutput("b", parent="a"))
TAIL = shows(TaskOutput("c", parent="a"), TaskOutput("d", parent="c"))
WINDOW = Listing("a", since=datetime(2026, 1, 1, tzinfo=UTC))
LOOPS: Mapping[str, tuple[Sequence[Deed], set[str], int]] = {
    "its own parent": ([ITSELF, BEFORE, shows(listed=[Listing("a")])], {"b"}, 0),
    "its own parent, and the last item": ([ITSELF, shows(listed=[Listing("a")])], {"a"}, 1),
    "its own parent, listed at the root": ([ITSELF, BEFORE, shows(listed=[Listing()])], {"a"}, 0),
    "its own parent, seen": ([ITSELF, shows(seen=["a"], listed=[Listing("a")])], {"a"}, 0),
    "its own parent, deleted by itself": ([ITSELF, shows(TaskOutput.gone("a"))], set(), 0),
    "its own parent, held twice": (
        [ITSELF, shows(listed=[Listing("a")]), shows(listed=[Listing("a"), Listing("a")])],
        {"a"},
        1,
    ),
    "its own parent, held, and another window": (
        [ITSELF, shows(listed=[Listing("a")]), shows(listed=[WINDOW])],
        {"a"},
        0,
    ),
    "its own parent, with children that the listing shows": (
        [ITSELF, TAIL, shows(seen=["c"], listed=[Listing("a")])],
        {"c", "d"},
        0,
    ),
    "a loop of two": ([LOOP, shows(TaskOutput("x")), TAIL, shows(listed=[Listing("a")])], {"x"}, 0),
    "a loop of two, and nothing else": (
        [LOOP, TAIL, shows(listed=[Listing("b"), Listing("a")])],
        set("abcd"),
        1,
    ),
    "a loop of two, deleted by one": ([LOOP, TAIL, shows(TaskOutput.gone("b"))], set(), 0),
    "a listing, and the listing above it": (
        [
            shows(TaskOutput("a"), TaskOutput("b", parent="a")),
            shows(listed=[Listing(), Listing("a")]),
        ],
        set("a"),
        1,
    ),
}
"""Items that are their own ancestors: the deeds, the items that stay, and the held listings."""


@pytest.mark.parametrize("name", LOOPS)
def test_both_end_at_loops_of_parents(engine: Engine, name: str) -> None:
    deeds, stay, held = LOOPS[name]
    verdict = both(engine, *deeds)
    assert (set(verdict.content), verdict.held) == (stay, held)


def test_both_count_what_lies_below_a_listing(engine: Engine) -> None:
    below = [TaskOutput(id, parent="a") for id in "cde"]
    kept = shows(TaskOutput("a"), *below, TaskOutput("b"), TaskOutput("x"))
    guard = DeleteGuard(0.5, min_items=2)
    verdict = both(engine, kept, shows(seen=["a"], listed=[Listing()]), guard=guard)
    assert (set(verdict.content), verdict.held) == (set("acde"), 0)


def test_both_count_the_single_deletions_of_a_run_together(engine: Engine) -> None:
    kept = shows(*(TaskOutput(id) for id in "abcd"))
    fourth = Deed(lambda: TaskResult([TaskOutput.gone("a")]), deleted=3)
    verdict = both(engine, kept, fourth, guard=DeleteGuard(0.5, min_items=2))
    assert set(verdict.content) == set("abcd")


LATE: Mapping[str, tuple[Sequence[Deed], Callable[[], TaskResult]]] = {
    "a download, after the deletion of an unknown item": (
        [shows(TaskOutput.gone("a"))],
        lambda: TaskResult([TaskOutput("a", "old")]),
    ),
    "a download, after the deletion of its item": (
        [shows(TaskOutput("a", "old")), shows(TaskOutput.gone("a"))],
        lambda: TaskResult([TaskOutput("a", "old")]),
    ),
    "a download, after a newer one": (
        [shows(TaskOutput("a", "new"))],
        lambda: TaskResult([TaskOutput("a", "old")]),
    ),
    "an update, after a newer download": (
        [shows(TaskOutput("a", "new", metadata={"m": 1}))],
        lambda: TaskResult([TaskOutput.update("a", metadata={"m": 0})]),
    ),
    "a deletion, after a newer download": (
        [shows(TaskOutput("a", "new"))],
        lambda: TaskResult([TaskOutput.gone("a")]),
    ),
    "a download, after a listing that lacks its item": (
        [shows(TaskOutput("a", "old")), shows(seen=["b"], listed=[Listing()])],
        lambda: TaskResult([TaskOutput("a", "old")]),
    ),
    "a state, after a newer one": (
        [Deed(lambda: TaskResult(state={"p": Bare(2)}))],
        lambda: TaskResult(state={"p": Bare(1)}),
    ),
}
"""Results that are saved late: the deeds before, and the result."""


@pytest.mark.parametrize("name", LATE)
def test_both_ignore_what_is_older(engine: Engine, name: str) -> None:
    deeds, make = LATE[name]
    before = both(engine, BEFORE, *deeds)
    verdict = both(engine, BEFORE, *deeds, Deed(make, late=True, name=name))
    assert verdict.state == "done"
    assert (verdict.content, verdict.states) == (before.content, before.states)


@pytest.mark.parametrize("name", EFFECTS)
def test_both_set_the_task_to_the_same_state(engine: Engine, name: str) -> None:
    deed, state = EFFECTS[name]
    before = Deed(lambda: TaskResult([TaskOutput("b", "before")], state={"p": Bare(1)}))
    assert both(engine, before, deed).state == state


untimed = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@untimed
@given(deeds=st.lists(DEEDS, min_size=1, max_size=3))
def test_both_judge_random_deeds_alike(engine: Engine, deeds: list[Deed]) -> None:
    both(engine, *deeds)


@untimed
@given(
    deeds=st.lists(PLAIN_DEEDS, min_size=2, max_size=6),
    deletions=st.sampled_from([Deletions.MARK, Deletions.MARK, Deletions.KEEP]),
    guard=st.builds(DeleteGuard, st.sampled_from([0.5, 0.0, 1.0]), st.sampled_from([2, 20])),
)
def test_both_keep_and_delete_the_same(
    engine: Engine, deeds: list[Deed], deletions: Deletions, guard: DeleteGuard
) -> None:
    # With children of a deleted item, the kit may hold the deletions of other listings.
    both(engine, *deeds, holds=False, deletions=deletions, guard=guard)
