"""The engine and the kit judge alike.

For each result and exception of a task, the worker with its saver and PostgreSQL does the same as
`core.testing.Harness`.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.judges import Engine, Kit, Verdict
from support.odd_results import DEEDS, EFFECTS, KEPT, PARKED, PLAIN_DEEDS, WAITS, Bare, Deed

from core import TaskOutput, TaskResult

BEFORE = Deed(lambda: TaskResult([TaskOutput("b", "before")]))
"""A deed that keeps an item before the named deed runs."""


@pytest.fixture
def engine(desk, database, queues, vault, blobs) -> Engine:
    return Engine(desk, database, queues, vault, blobs)


def both(engine: Engine, *deeds: Deed) -> Verdict:
    """Return the verdict on the last deed, after both have agreed on each."""
    theirs, ours = engine.judge(deeds), Kit().judge(deeds)
    for deed, one, other in zip(deeds, theirs, ours, strict=True):
        assert one == other, deed
        assert_same_wait(one, other)
    return theirs[-1]


def assert_same_wait(engine: Verdict, kit: Verdict) -> None:
    """Assert that the kit's wait is the longest that the engine can draw."""
    if kit.wait is not None and kit.stopped is None:
        assert engine.wait is not None
        assert engine.wait <= kit.wait * 1.05
        assert engine.wait >= kit.wait / 2 - 1 or kit.attempts, "only a retry is drawn from 0"


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


@pytest.mark.parametrize("name", EFFECTS)
def test_both_set_the_task_to_the_same_state(engine: Engine, name: str) -> None:
    deed, state = EFFECTS[name]
    before = Deed(lambda: TaskResult([TaskOutput("b", "before")], state={"p": Bare(1)}))
    assert both(engine, before, deed).state == state


untimed = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@untimed
@given(deeds=st.lists(DEEDS, min_size=1, max_size=3))
def test_both_judge_random_deeds_alike(engine: Engine, deeds: list[Deed]) -> None:
    both(engine, *deeds)


@untimed
@given(deeds=st.lists(PLAIN_DEEDS, min_size=2, max_size=6))
def test_both_keep_and_delete_the_same(engine: Engine, deeds: list[Deed]) -> None:
    both(engine, *deeds)
