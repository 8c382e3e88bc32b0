"""The saver's threads: which work waits, and which does not."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from support.waiting import until

from core import Listing, Task, TaskOutput
from core.content import holds
from core.ledger import hints
from core.plugins import Registry
from core.results.delete_guard import DeleteGuard
from core.worker.inflight import InflightTasks
from core.worker.saver import Saver


class Cursor(BaseModel):
    page: int = 0


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


def test_results_wait_for_others_while_the_process_has_other_tasks(
    desk, database, queues, monkeypatch
) -> None:
    """Tasks that do nothing end before the next one starts, so no thread runs one in between."""
    monkeypatch.setattr("core.worker.saver.GATHER_SECONDS", 60.0)
    monkeypatch.setattr("core.worker.saver.PAUSE_SECONDS", 60.0)
    monkeypatch.setattr("core.worker.saver.MAX_BATCH_OUTCOMES", 2)
    inflight = InflightTasks()
    first, second, _ = roots = [desk.root(desk.account(name)) for name in ("a", "b", "c")]
    for root in roots:
        inflight.receive(root)
    saver = Saver(database, queues, inflight, Registry(), guard=DeleteGuard())
    saver.start()
    done = "SELECT count(DISTINCT xmin::text), count(*) FROM sync_task WHERE state = 'done'"
    saver.hand_over(desk.outcome(first))
    for _ in range(200):
        assert desk.rows(done) == [(0, 0)]
    saver.hand_over(desk.outcome(second))
    until(lambda: desk.rows(done) == [(1, 2)], "both are saved in one transaction")
    saver.stop(20)


def test_results_do_not_wait_when_no_other_arrives(desk, database, queues, monkeypatch) -> None:
    """Slow tasks that end together make room for the next ones."""
    monkeypatch.setattr("core.worker.saver.GATHER_SECONDS", 60.0)
    inflight = InflightTasks()
    first, _ = roots = [desk.root(desk.account(name)) for name in ("a", "b")]
    for root in roots:
        inflight.receive(root)
    saver = Saver(database, queues, inflight, Registry(), guard=DeleteGuard())
    saver.start()
    saver.hand_over(desk.outcome(first))
    until(lambda: desk.runs().count("succeeded") == 1, "its run has ended")
    saver.stop(20)


def test_the_result_of_the_only_task_of_a_process_does_not_wait(
    desk, database, queues, monkeypatch
) -> None:
    monkeypatch.setattr("core.worker.saver.GATHER_SECONDS", 60.0)
    inflight, root = InflightTasks(), desk.root(desk.account("one"))
    inflight.receive(root)
    saver = Saver(database, queues, inflight, Registry(), guard=DeleteGuard())
    saver.start()
    saver.hand_over(desk.outcome(root))
    until(lambda: desk.runs() == ["succeeded"], "its run has ended")
    saver.stop(20)


def test_results_do_not_wait_behind_the_settlement_of_a_large_held_deletion(
    desk, database, queues, connect, monkeypatch
) -> None:
    monkeypatch.setattr(holds, "DIRECT_ROWS", 5)
    account, names = desk.account("one"), [str(number) for number in range(10)]
    desk.keep(account, *map(TaskOutput, names))
    root, other = desk.root(account), desk.root(desk.account("two"))
    held = desk.hold(account, UUID(root.run_id), *names)
    saver = Saver(database, queues, InflightTasks(), Registry(), guard=DeleteGuard())
    saver.start()
    stranger = connect()
    with stranger.transaction():
        stranger.execute("SELECT FROM held_deletion_item FOR UPDATE")
        saver.hand_over(desk.outcome(root, seen=["0"]))
        until(
            lambda: desk.value("SELECT count(*) FROM pg_locks WHERE NOT granted"),
            "the settlement waits for a lock",
        )
        saver.hand_over(desk.outcome(other, output=[TaskOutput("x")]))
        until(lambda: desk.runs() == ["succeeded"] * 3, "both runs end")
    until(
        lambda: desk.rows("SELECT id, vanished FROM held_deletion") == [(held, 9)],
        "the held deletion is settled",
    )
    until(lambda: desk.rows("SELECT FROM sync_seen") == [], "the seen ids are deleted")
    saver.stop(20)


def test_contended_states_are_saved_again_and_logged_as_what_they_are(
    desk, database, queues, caplog
) -> None:
    root = desk.root(desk.account())
    desk.conn.execute(
        """
        CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER skip BEFORE INSERT ON sync_state FOR EACH ROW EXECUTE FUNCTION skip();
        """
    )
    saver = Saver(database, queues, InflightTasks(), Registry(), guard=DeleteGuard())
    outcome = desk.outcome(root, state={"p": Cursor()})
    thread = threading.Thread(target=saver.save, args=([outcome],))
    thread.start()
    until(lambda: "could not save results" in caplog.text, "the first try fails")
    desk.conn.execute("DROP TRIGGER skip ON sync_state")
    thread.join()
    assert desk.rows("SELECT state FROM sync_task") == [("done",)]
    assert "other tasks keep inserting the same state partitions" in caplog.text
    assert "PostgreSQL is not available" not in caplog.text


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


def test_the_end_of_a_run_wakes_the_dispatcher_for_the_run_of_a_hint(
    desk, database, queues
) -> None:
    account = desk.account("one")
    root = desk.root(account)
    hints.add(desk.conn, account, "a")
    assert not queues.woken()
    saver = Saver(database, queues, InflightTasks(), Registry(), guard=DeleteGuard())
    saver.start()
    saver.hand_over(desk.outcome(root))
    until(queues.woken, "the dispatcher is woken")
    assert desk.value("SELECT trigger FROM sync_run WHERE state = 'running'") == "hint"
    saver.stop(20)


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


@pytest.mark.parametrize(
    ("result", "generic"),
    [
        ({"output": [TaskOutput("a", "x")], "tasks": [Task("step")], "seen": ["b"]}, True),
        ({"listed": [Listing()]}, False),
        ({"output": [TaskOutput.gone("a")]}, False),
    ],
)
def test_a_batch_that_finds_further_rows_is_planned_for_its_values(
    desk, database, queues, result: dict[str, Any], generic: bool
) -> None:
    """A generic plan of a sweep would read all rows of its account."""
    saver = Saver(database, queues, InflightTasks(), Registry(), guard=DeleteGuard())
    roots = [desk.root(desk.account(name)) for name in ("one", "two")]
    outcomes = [desk.outcome(roots[0]), desk.outcome(roots[1], **result)]
    used: list[bool] = []
    connection = database.connection

    def borrow(*args: Any, generic_plans: bool = False) -> Any:
        used.append(generic_plans)
        return connection(*args, generic_plans=generic_plans)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "connection", borrow)
        assert len(saver._commit(outcomes).applied) == 2
    assert used == [generic]
