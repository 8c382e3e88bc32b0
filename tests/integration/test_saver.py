"""The saver's threads: what waits for what, and what does not."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from support.waiting import until

from core import Task, TaskOutput
from core.plugins import Registry
from core.worker.inflight import InflightTasks
from core.worker.saver import Saver


def test_tasks_do_not_wait_behind_content(desk, database, queues, connect) -> None:
    """However long a batch of content takes to be saved: what adds tasks is work for others."""
    root = desk.root(desk.account("one"))
    desk.finish(
        root,
        output=[TaskOutput("a", "text")],
        tasks=[Task("step", {"number": 1}), Task("step", {"number": 2})],
    )
    content, page = desk.claim()
    saver = Saver(database, queues, InflightTasks(), Registry(), max_deleted_share=0.5)
    saver.start()
    stranger = connect()
    with stranger.transaction():
        stranger.execute("SELECT id FROM user_integration_content FOR UPDATE")
        saver.hand_over(desk.outcome(content, output=[TaskOutput("a", "changed")]))
        until(
            lambda: desk.value("SELECT count(*) FROM pg_locks WHERE NOT granted"),
            "the content waits for a lock",
        )
        saver.hand_over(desk.outcome(page, tasks=[Task("step", {"number": 3})]))
        until(lambda: desk.value("SELECT count(*) FROM sync_task") == 4, "the task is there")
        assert desk.value("SELECT content_text FROM user_integration_content") == "text"
    until(
        lambda: desk.value("SELECT content_text FROM user_integration_content") == "changed",
        "it is saved",
    )
    saver.stop(20)


def test_runs_end_though_their_last_task_is_saved_before_the_one_that_added_it_is_let_go_of(
    desk, database, queues
) -> None:
    """A result that cannot be saved has its batch halved again and again: what the others add is
    done in the meantime.
    """
    inflight = InflightTasks()
    saver = Saver(database, queues, inflight, Registry(), max_deleted_share=0.5)
    roots = [desk.root(desk.account(f"a{number}")) for number in range(50)]
    for root in roots:
        inflight.receive(root)
        outcome = desk.outcome(root, tasks=[Task("step")])
        if root is roots[-1]:
            outcome.tasks[0] = outcome.tasks[0]._replace(priority=2**40)
        saver.hand_over(outcome)
    saver.start()
    saved: list[str] = []

    def all_saved() -> bool:
        for dispatch in desk.claim():
            inflight.receive(dispatch)
            saver.hand_over(desk.outcome(dispatch))
            saved.append(dispatch.id)
        return len(saved) == len(roots) - 1

    until(all_saved, "what they have added is done")
    saver.stop(20)
    assert sorted(desk.runs()) == ["failed"] + ["succeeded"] * 49


def test_a_saver_whose_observer_hangs_is_seen_to_be_stuck(
    desk, database, queues, monkeypatch
) -> None:
    """What waits behind it would be held for ever: its process ends, and the leases bring it
    back.
    """
    hangs, goes_on = threading.Event(), threading.Event()

    def observe(*_: Any, **__: Any) -> None:
        hangs.set()
        assert goes_on.wait(20)

    saver = Saver(
        database, queues, InflightTasks(), SimpleNamespace(observe=observe), max_deleted_share=0.5
    )  # type: ignore[arg-type]
    saver.start()
    saver.hand_over(desk.outcome(desk.root(desk.account("one")), output=[TaskOutput("a", "text")]))
    assert hangs.wait(20)
    assert not saver.stuck
    monkeypatch.setattr("core.worker.saver.STUCK_SECONDS", 0.01)
    until(lambda: saver.stuck, "it is stuck")
    goes_on.set()
    until(lambda: not saver.stuck, "it rests")
    saver.stop(20)
