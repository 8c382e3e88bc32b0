"""The saver's threads: which work waits, and which does not."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from support.waiting import until

from core import Task, TaskOutput
from core.plugins import Registry
from core.results.delete_guard import DeleteGuard
from core.worker.inflight import InflightTasks
from core.worker.saver import Saver


def test_results_with_tasks_do_not_wait_behind_content(desk, database, queues, connect) -> None:
    """Results that add tasks are saved while a batch of content takes any time."""
    root = desk.root(desk.account("one"))
    desk.finish(
        root,
        output=[TaskOutput("a", "text")],
        tasks=[Task("step", {"number": 1}), Task("step", {"number": 2})],
    )
    content, page = desk.claim()
    saver = Saver(database, queues, InflightTasks(), Registry(), guard=DeleteGuard())
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
        until(lambda: desk.value("SELECT count(*) FROM sync_task") == 4, "the task is saved")
        assert desk.value("SELECT content_text FROM user_integration_content") == "text"
    until(
        lambda: desk.value("SELECT content_text FROM user_integration_content") == "changed",
        "the content is saved",
    )
    saver.stop(20)


def test_runs_end_though_their_root_is_released_after_their_last_task(
    desk, database, queues
) -> None:
    """A result that cannot be saved has its batch halved again and again.

    The tasks that the other results add are done in the meantime.
    """
    inflight = InflightTasks()
    saver = Saver(database, queues, inflight, Registry(), guard=DeleteGuard())
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

    until(all_saved, "the added tasks are done")
    saver.stop(20)
    assert sorted(desk.runs()) == ["failed"] + ["succeeded"] * 49


def test_a_saver_whose_observer_hangs_counts_as_stuck(desk, database, queues, monkeypatch) -> None:
    """The results behind it would never be saved.

    Its process ends, and its tasks are redelivered when their leases expire.
    """
    hangs, goes_on = threading.Event(), threading.Event()

    def observe(*_: Any, **__: Any) -> None:
        hangs.set()
        assert goes_on.wait(20)

    saver = Saver(
        database, queues, InflightTasks(), SimpleNamespace(observe=observe), guard=DeleteGuard()
    )  # type: ignore[arg-type]
    saver.start()
    saver.hand_over(desk.outcome(desk.root(desk.account("one")), output=[TaskOutput("a", "text")]))
    assert hangs.wait(20)
    assert not saver.stuck
    monkeypatch.setattr("core.worker.saver.STUCK_SECONDS", 0.01)
    until(lambda: saver.stuck, "the saver is stuck")
    goes_on.set()
    until(lambda: not saver.stuck, "the saver is idle")
    saver.stop(20)
