"""Controls of tasks and runs: retry, discard, cancel.

They lose nothing except discarded tasks.
"""

from __future__ import annotations

import time
from uuid import UUID, uuid4

import pytest

from core import Task
from core.errors import InvalidInput, NotFound, WrongState
from core.ledger import carry_over, completion, controls
from core.ledger.outcomes import parked
from core.service.runs import progress, tree


def park(desk, dispatch) -> None:
    desk.save(parked(desk.outcome(dispatch), "no"))
    completion.end_runs(desk.conn, {dispatch.run_id})


def one_parked(desk, account, *, ended: bool = True):
    """Return a parked task of a run that has ended, or is still open."""
    root = desk.root(account)
    desk.finish(root, tasks=[Task("step", {"number": 1}), *([] if ended else [Task("page")])])
    bad = next(dispatch for dispatch in desk.claim() if dispatch.type == "step")
    park(desk, bad)
    return bad


def test_a_retry_after_the_end_is_a_copy_in_a_new_run(desk) -> None:
    bad = one_parked(desk, desk.account())
    (copy,) = controls.retry(desk.conn, [bad.task_id])
    assert desk.runs() == ["partial", "running"]
    row = desk.rows(
        "SELECT retry_of, type, payload, attempts, state FROM sync_task WHERE id = %s", copy
    )
    assert row == [(bad.task_id, "step", {"number": 1}, 0, "ready")]
    assert desk.value("SELECT retried_as FROM sync_task WHERE id = %s", bad.task_id) == copy
    desk.finish(*desk.claim())
    assert desk.runs() == ["partial", "succeeded"]


def test_a_retry_during_the_run_is_a_copy_in_it_and_the_run_succeeds(desk) -> None:
    bad = one_parked(desk, desk.account(), ended=False)
    controls.retry(desk.conn, [bad.task_id])
    page = desk.rows("SELECT id FROM sync_task WHERE type = 'page'")[0][0]
    desk.conn.execute("UPDATE sync_task SET state = 'ready' WHERE id = %s", (page,))
    for dispatch in desk.claim():
        desk.finish(dispatch)
    assert desk.runs() == ["succeeded"]


COUNTS = "SELECT tasks_done, tasks_parked, tasks_deferred, error FROM sync_run WHERE id = %s"


def retried(desk):
    """Return the run of a parked task that was retried within it; its copy is ready."""
    bad = one_parked(desk, desk.account(), ended=False)
    desk.conn.execute("UPDATE sync_task SET state = 'ready' WHERE type = 'page'")
    controls.retry(desk.conn, [bad.task_id])
    return UUID(bad.run_id)


def shown(desk, backend, run: UUID) -> list[dict[str, int]]:
    """Return the counts of a run as its page and as its tree show them."""
    now = progress.progress(desk.conn, run)
    branches = tree.by_type(desk.conn, backend.query_slots, run, None)
    sums = {
        name: sum(getattr(branch, name) for branch in branches)
        for name in ("known", "done", "parked", "deferred")
    }
    counters = now.counters()
    return [
        {"known": now.known} | {n: counters[f"tasks_{n}"] for n in ("done", "parked", "deferred")},
        sums,
    ]


def test_a_task_that_was_retried_in_its_run_counts_once(desk, backend) -> None:
    run = retried(desk)
    assert shown(desk, backend, run) == [{"known": 3, "done": 1, "parked": 0, "deferred": 0}] * 2
    for dispatch in desk.claim():
        desk.finish(dispatch)
    assert shown(desk, backend, run) == [{"known": 3, "done": 3, "parked": 0, "deferred": 0}] * 2


def test_a_succeeded_run_shows_no_error_of_a_retried_task(desk) -> None:
    run = retried(desk)
    for dispatch in desk.claim():
        desk.finish(dispatch)
    assert desk.runs() == ["succeeded"]
    assert desk.rows(COUNTS, run) == [(3, 0, 0, None)]


def test_a_cancelled_run_counts_as_it_did_while_it_was_open(desk, backend) -> None:
    run = retried(desk)
    (copy,) = (each for each in desk.claim() if each.type == "step")
    park(desk, copy)
    controls.retry(desk.conn, [copy.task_id])
    before = shown(desk, backend, run)
    controls.cancel_run(desk.conn, run)
    assert shown(desk, backend, run) == before
    assert desk.rows(COUNTS, run) == [(1, 0, 0, "cancelled by hand")]


def test_a_task_that_a_later_run_retries_still_counts_in_its_own(desk, backend) -> None:
    bad = one_parked(desk, desk.account())
    before = shown(desk, backend, UUID(bad.run_id))
    assert before == [{"known": 2, "done": 1, "parked": 1, "deferred": 0}] * 2
    controls.retry(desk.conn, [bad.task_id])
    assert shown(desk, backend, UUID(bad.run_id)) == before


def test_a_cancelled_run_keeps_the_number_of_its_held_deletions(desk) -> None:
    account = desk.account()
    run = desk.run(account)
    desk.hold(account, run, "a", "b")
    controls.cancel_run(desk.conn, run)
    assert progress.progress(desk.conn, run).counters()["deletions_held"] == 2


def test_a_second_retry_is_refused_even_when_concurrent(desk, connect, together) -> None:
    bad = one_parked(desk, desk.account())
    conns = [connect() for _ in range(4)]
    answers = together(*(lambda conn=conn: controls.retry(conn, [bad.task_id]) for conn in conns))
    assert sum(isinstance(answer, list) for answer in answers) == 1
    assert {type(answer) for answer in answers} == {list, WrongState}
    assert desk.value("SELECT count(*) FROM sync_task WHERE retry_of IS NOT NULL") == 1


def test_only_parked_tasks_are_retried_or_discarded_all_or_none(desk) -> None:
    account = desk.account()
    bad = one_parked(desk, account)
    done = desk.value("SELECT id FROM sync_task WHERE state = 'done'")
    for action in (controls.retry, controls.discard):
        with pytest.raises(InvalidInput, match="neither parked nor deferred"):
            action(desk.conn, [bad.task_id, done])
        with pytest.raises(NotFound, match="task 1000000000 not found"):
            action(desk.conn, [bad.task_id, 10**9])
    assert desk.rows("SELECT state, retried_as FROM sync_task WHERE id = %s", bad.task_id) == [
        ("parked", None)
    ]


def test_a_discarded_task_is_never_run_again(desk) -> None:
    account = desk.account()
    bad = one_parked(desk, account)
    assert controls.discard(desk.conn, [bad.task_id]) == [bad.task_id]
    assert desk.rows("SELECT state, reason FROM sync_task WHERE id = %s", bad.task_id) == [
        ("done", "discarded by hand: no")
    ]
    desk.run(account)
    assert desk.value("SELECT count(*) FROM sync_task WHERE retry_of IS NOT NULL") == 0


@pytest.mark.parametrize("state", ["parked", "deferred", "cancelled"])
def test_every_stopped_task_can_be_discarded(desk, state: str) -> None:
    bad = one_parked(desk, desk.account())
    desk.conn.execute("UPDATE sync_task SET state = %s WHERE id = %s", (state, bad.task_id))
    assert controls.discard(desk.conn, [bad.task_id]) == [bad.task_id]


def test_a_parked_task_waits_for_a_person(desk) -> None:
    account = desk.account()
    bad = one_parked(desk, account)
    for _ in range(3):
        desk.finish(desk.root(account))
    assert desk.runs() == ["partial"] + ["succeeded"] * 3
    assert desk.rows("SELECT state, retried_as FROM sync_task WHERE id = %s", bad.task_id) == [
        ("parked", None)
    ]


# Cancelling
# --------------------------------------------------------------------------------------------------


def test_cancelling_carries_open_tasks_into_the_next_run(desk) -> None:
    account = desk.account()
    root = desk.root(account)
    desk.finish(root, tasks=[Task("step", {"number": n}, priority=n) for n in range(3)])
    flying = desk.claim()[0]
    controls.cancel_run(desk.conn, UUID(root.run_id))
    assert desk.runs() == ["cancelled"]
    assert desk.save(desk.outcome(flying)).applied == []
    desk.run(account)
    carried = desk.rows(
        "SELECT payload->>'number', priority, retry_of IS NOT NULL "
        "FROM sync_task WHERE state = 'ready' AND type = 'step' ORDER BY 1"
    )
    assert carried == [("0", 0, True), ("1", 1, True), ("2", 2, True)]
    for dispatch in desk.claim():
        desk.finish(dispatch)
    assert desk.runs() == ["cancelled", "succeeded"]
    desk.run(account)
    assert desk.value("SELECT count(*) FROM sync_task WHERE state = 'ready'") == 1


def test_carrying_thousands_of_tasks_is_fast(desk) -> None:
    account = desk.account()
    run = desk.run(account)
    desk.conn.execute(
        "INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type,"
        " payload, dedup_key, parent_id) SELECT r.id, user_integration_id, integration_domain,"
        " lane, 'step', '{}', convert_to(n::text, 'UTF8'), 1 FROM sync_run r, generate_series(1,"
        " 4000) n"
    )
    controls.cancel_run(desk.conn, run)
    began = time.monotonic()
    desk.run(account)
    while carry_over.carry_on(desk.conn, 1.0):
        pass
    assert time.monotonic() - began < 1.5
    assert desk.value("SELECT count(*) FROM sync_task WHERE state = 'ready' AND carried") == 4000
    assert (
        desk.value(
            "SELECT count(*) FROM sync_task WHERE state = 'cancelled' AND retried_as IS NULL"
        )
        == 0
    )


def test_a_run_cancelled_before_its_root_ran_does_not_run_it_twice(desk) -> None:
    account = desk.account()
    controls.cancel_run(desk.conn, desk.run(account))
    desk.run(account)
    assert desk.rows("SELECT type FROM sync_task WHERE state = 'ready'") == [("start",)]


def test_follow_ups_that_a_saver_adds_during_a_cancellation_are_cancelled(
    desk, connect, together, blocked_in
) -> None:
    root = desk.root(desk.account())
    saver, canceller = connect(), connect()
    outcome = desk.outcome(root, tasks=[Task("step", {"number": n}) for n in range(3)])
    with saver.transaction():
        desk.save(outcome, conn=saver)
        import threading

        thread = threading.Thread(target=controls.cancel_run, args=(canceller, UUID(root.run_id)))
        thread.start()
        blocked_in(canceller.info.backend_pid)
    thread.join()
    assert desk.runs() == ["cancelled"]
    assert desk.value("SELECT count(*) FROM sync_task WHERE state IN ('ready', 'queued')") == 0
    assert desk.value("SELECT count(*) FROM sync_task WHERE state = 'cancelled'") == 3


def test_a_run_that_has_ended_or_is_unknown_cannot_be_cancelled(desk) -> None:
    root = desk.root(desk.account())
    desk.finish(root)
    with pytest.raises(InvalidInput, match="already ended as succeeded"):
        controls.cancel_run(desk.conn, UUID(root.run_id))
    with pytest.raises(NotFound):
        controls.cancel_run(desk.conn, uuid4())


def test_pruning_leaves_parked_and_recent_tasks(desk) -> None:
    from core.ledger import pruning

    account = desk.account()
    bad = one_parked(desk, account)
    assert pruning.prune_runs(desk.conn, 30, 60)
    assert len(desk.tasks()) == 2
    desk.conn.execute("UPDATE sync_run SET finished_at = now() - interval '31 days'")
    assert pruning.prune_runs(desk.conn, 30, 60)
    assert desk.tasks() == {bad.task_id: "parked"}
    assert desk.rows("SELECT pruned FROM sync_run") == [(True,)]


def test_a_run_of_many_tasks_is_pruned_in_portions(desk, monkeypatch) -> None:
    from core.ledger import pruning

    monkeypatch.setattr(pruning, "TASKS_PER_STATEMENT", 2)
    monkeypatch.setattr(pruning, "PRUNE_TASKS", pruning.PRUNE_TASKS.replace("5000", "2"))
    root = desk.root(desk.account())
    desk.finish(root, tasks=[Task("step", {"number": number}) for number in range(7)])
    desk.conn.execute("UPDATE sync_task SET state = 'done'")
    desk.conn.execute(
        "UPDATE sync_run SET state = 'succeeded', finished_at = now() - interval '31 days'"
    )
    for left in (6, 4, 2, 0):
        assert not pruning.prune_runs(desk.conn, 30, 0)
        assert len(desk.tasks()) == left
    pruning.prune_runs(desk.conn, 30, 0)
    assert desk.runs() == []


OLD_RUNS = """
WITH old AS (
    INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, state,
        start_seq, finished_at)
    SELECT gen_random_uuid(), %s, 'shop', 'live', 'schedule', 'succeeded', 0,
        now() - interval '31 days'
    FROM generate_series(1, 250) RETURNING id, user_integration_id
)
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key, state)
SELECT id, user_integration_id, 'shop', 'live', 'start', '{}', '', 'done' FROM old
"""


def test_any_number_of_old_runs_is_pruned_in_portions(desk, monkeypatch) -> None:
    from core.ledger import pruning

    desk.conn.execute(OLD_RUNS, (desk.account(),))
    monkeypatch.setattr(pruning, "RUNS_PER_STATEMENT", 100)
    assert not pruning.prune_runs(desk.conn, 30, 0)
    assert len(desk.tasks()) == len(desk.runs()) == 150
    assert pruning.prune_runs(desk.conn, 30, 60)
    assert desk.tasks() == {}


def test_old_runs_are_deleted_unless_they_have_a_parked_task(desk, monkeypatch) -> None:
    from core.ledger import pruning

    monkeypatch.setattr(pruning, "RUNS_PER_STATEMENT", 100)
    account = desk.account()
    bad = one_parked(desk, account)
    desk.conn.execute("UPDATE sync_run SET finished_at = now() - interval '40 days'")
    recent = desk.run(account)
    assert pruning.prune_runs(desk.conn, 30, 60)
    assert len(desk.runs()) == 2
    desk.conn.execute(OLD_RUNS, (account,))
    desk.conn.execute("UPDATE sync_run SET pruned = true WHERE state <> 'running'")
    pruner = pruning.KeptRunPruner()
    assert not pruner.prune(desk.conn, 30, 0)
    assert 2 < len(desk.runs()) < 252
    assert pruner.prune(desk.conn, 30, 60)
    left = {id for (id,) in desk.rows("SELECT id FROM sync_run")}
    assert left == {UUID(bad.run_id), recent}
    controls.discard(desk.conn, [bad.task_id])
    assert pruner.prune(desk.conn, 30, 60)
    assert desk.rows("SELECT id FROM sync_run") == [(recent,)]


def test_an_account_stays_complete_when_its_latest_run_is_deleted(desk) -> None:
    """The run ended under a version that did not write the time into the account."""
    from core.ledger import pruning
    from core.service.accounts.owed import owed_by

    account = desk.account()
    desk.finish(desk.root(account))
    desk.conn.execute("UPDATE user_integration SET listing_began_at = NULL")
    complete = owed_by(desk.conn, account).complete_as_of
    desk.conn.execute("UPDATE sync_run SET finished_at = now() - interval '31 days'")
    assert pruning.prune_runs(desk.conn, 30, 60)
    assert pruning.KeptRunPruner().prune(desk.conn, 30, 60)
    assert desk.runs() == []
    assert owed_by(desk.conn, account).complete_as_of == complete


def test_a_run_that_makes_new_keys_endlessly_is_bounded(desk) -> None:
    from core.ledger import processes, pruning

    processes.register(
        desk.conn,
        [{"domain": "shop", "name": "Shop", "version": None, "tasks": {}, "max_tasks": 3}],
    )
    run = desk.run(desk.account())
    desk.add(run, "a", "b")
    desk.conn.execute("UPDATE sync_run SET started_at = now() - interval '1 min'")
    pruning.mark_over_limit(desk.conn)
    assert desk.value("SELECT over_limit FROM sync_run") is None
    desk.add(run, "c")
    pruning.mark_over_limit(desk.conn)
    assert "more than 3 tasks" in desk.value("SELECT over_limit FROM sync_run")
