"""A run ends exactly once, after its last task, never before."""

from __future__ import annotations

import threading
from uuid import UUID

import pytest
from psycopg import Cursor
from psycopg.pq import TransactionStatus

from core import Task, TaskOutput
from core.ledger import completion, controls, dispatching, scheduling
from core.ledger.dispatching import TaskPortion
from core.ledger.outcomes import parked
from core.plugins import Registry
from core.results.delete_guard import DeleteGuard
from core.service.accounts import daily
from core.service.accounts.owed import owed_by
from core.worker.inflight import InflightTasks
from core.worker.saver import Saver


def siblings(desk, count: int):
    """Return `count` dispatched tasks of a run whose root is done."""
    root = desk.root(desk.account())
    desk.finish(root, tasks=[Task("step", {"number": number}) for number in range(count)])
    return desk.claim()


def test_a_run_ends_after_its_last_task_and_counts_its_results(desk) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("same"), TaskOutput("gone"))
    root = desk.root(account)
    desk.finish(root, tasks=[Task("step", {"number": 1}), Task("step", {"number": 2})])
    first, second = desk.claim()
    desk.finish(first, output=[TaskOutput("new"), TaskOutput("same"), TaskOutput.gone("gone")])
    assert desk.runs()[-1] == "running"
    desk.finish(second)
    row = desk.rows(
        "SELECT state, tasks_done, tasks_parked, outputs_saved, outputs_unchanged, "
        "outputs_deleted, finished_at IS NULL "
        "FROM sync_run WHERE id = %s",
        root.run_id,
    )
    assert row == [("succeeded", 3, 0, 1, 1, 1, False)]


def test_a_hundred_concurrent_savers_of_siblings_end_a_run_once(desk, connect, together) -> None:
    dispatches = siblings(desk, 100)
    conns = [connect() for _ in range(10)]

    def close(conn, mine) -> list:
        ended = []
        for dispatch in mine:
            desk.save(desk.outcome(dispatch), conn=conn)
            ended += completion.end_runs(conn, {dispatch.run_id})
        return ended

    ended = together(
        *(lambda i=i, conn=conn: close(conn, dispatches[i::10]) for i, conn in enumerate(conns))
    )
    assert sum(map(len, ended)) == 1
    assert desk.rows("SELECT state, tasks_done FROM sync_run") == [("succeeded", 101)]


def test_runs_whose_last_two_tasks_close_concurrently_end_once(desk, connect, together) -> None:
    pairs = []
    for number in range(25):
        root = desk.root(desk.account(f"a{number}"))
        desk.finish(root, tasks=[Task("step", {"number": 1}), Task("step", {"number": 2})])
        pairs.append(desk.claim())
    conns = [connect(), connect()]

    def close(conn, dispatch) -> int:
        desk.save(desk.outcome(dispatch), conn=conn)
        return len(completion.end_runs(conn, {dispatch.run_id}))

    ended = [
        together(*(lambda c=c, d=d: close(c, d) for c, d in zip(conns, pair, strict=True)))
        for pair in pairs
    ]
    assert [sum(pair) for pair in ended] == [1] * 25
    assert set(desk.runs()) == {"succeeded"}


def test_a_check_inside_the_saving_transaction_would_end_no_run(desk, connect) -> None:
    """Each of two savers sees the other's task as open.

    Therefore the check is a transaction of its own.
    """
    first, second = siblings(desk, 2)
    one, two = connect(), connect()
    with one.transaction(), two.transaction():
        for conn, dispatch in ((one, first), (two, second)):
            desk.save(desk.outcome(dispatch), conn=conn)
            assert (
                conn.execute(completion.RUNS_TO_END, {"runs": [dispatch.run_id]}).fetchall() == []
            )
    assert desk.runs() == ["running"]
    assert len(completion.end_runs(desk.conn, {first.run_id})) == 1


TOGETHER = """
CREATE FUNCTION together() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER together AFTER UPDATE ON sync_task DEFERRABLE INITIALLY DEFERRED FOR EACH
    ROW
    WHEN (NEW.state = 'done') EXECUTE FUNCTION together();
"""
COMMITTING = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = "
)
COMMITTING += "(SELECT oid FROM pg_database WHERE datname = current_database())"


def test_savers_that_commit_the_last_two_tasks_concurrently_end_the_run(
    desk, database, queues, until
) -> None:
    """Both savers have written everything before either commits.

    Only a check after the commit can see that the run is complete.
    """
    dispatches = siblings(desk, 2)
    desk.conn.execute(TOGETHER)
    savers = [
        Saver(database, queues, InflightTasks(), Registry(), guard=DeleteGuard())
        for _ in dispatches
    ]
    threads = [
        threading.Thread(target=saver.save, args=([desk.outcome(dispatch)],))
        for saver, dispatch in zip(savers, dispatches, strict=True)
    ]
    desk.conn.execute("SELECT pg_advisory_lock(1)")
    for thread in threads:
        thread.start()
    until(lambda: desk.value(COMMITTING) == 2)
    desk.conn.execute("SELECT pg_advisory_unlock(1)")
    for thread in threads:
        thread.join()
    assert desk.rows("SELECT state, tasks_done FROM sync_run") == [("succeeded", 3)]


class AskedTogether(InflightTasks):
    """In-flight tasks whose threads ask together which runs still have tasks in this process."""

    def __init__(self) -> None:
        super().__init__()
        self._both = threading.Barrier(2, timeout=20)

    @property
    def runs(self) -> set[str]:
        self._both.wait()
        return super().runs


def test_threads_that_save_the_last_two_tasks_concurrently_end_the_run(
    desk, database, queues
) -> None:
    dispatches = siblings(desk, 2)
    inflight = AskedTogether()
    for dispatch in dispatches:
        inflight.receive(dispatch)
    saver = Saver(database, queues, inflight, Registry(), guard=DeleteGuard())
    threads = [
        threading.Thread(target=saver.save, args=([desk.outcome(dispatch)],))
        for dispatch in dispatches
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert desk.rows("SELECT state, tasks_done FROM sync_run") == [("succeeded", 3)]


def test_the_leader_ends_a_run_whose_process_died_before_the_check(desk) -> None:
    (last,) = siblings(desk, 1)
    desk.save(desk.outcome(last))
    assert [run["state"] for run in completion.end_forgotten_runs(desk.conn)[0]] == ["succeeded"]
    assert completion.end_forgotten_runs(desk.conn)[0] == []


@pytest.mark.parametrize("state", ["ready", "queued"])
def test_an_open_task_keeps_its_run_open(desk, state: str) -> None:
    first, second = siblings(desk, 2)
    desk.conn.execute("UPDATE sync_task SET state = %s WHERE id = %s", (state, second.task_id))
    desk.finish(first)
    assert completion.end_runs(desk.conn, {first.run_id}) == []
    assert completion.end_forgotten_runs(desk.conn)[0] == []


def test_a_retry_and_the_end_of_its_run_exclude_each_other(desk, connect, together) -> None:
    """A retry locks the run, so that its copy never joins a run that has ended."""
    from core.ledger.controls import retry

    for number in range(15):
        root = desk.root(desk.account(f"a{number}"))
        desk.finish(root, tasks=[Task("step", {"number": 1}), Task("step", {"number": 2})])
        bad, last = (one for one in desk.claim() if one.run_id == root.run_id)
        desk.save(parked(desk.outcome(bad), "no"))
        ends, retries = connect(), connect()

        def close(last=last, conn=ends) -> None:
            desk.save(desk.outcome(last), conn=conn)
            completion.end_runs(conn, {last.run_id})

        together(close, lambda bad=bad, conn=retries: retry(conn, [bad.task_id]))
        completion.end_forgotten_runs(desk.conn)
    lost = (
        "SELECT count(*) FROM sync_task t JOIN sync_run r ON r.id = t.run_id "
        "WHERE t.state = 'ready' AND r.state <> 'running'"
    )
    assert desk.value(lost) == 0
    assert desk.value("SELECT count(*) FROM sync_task WHERE retry_of IS NOT NULL") == 15


def test_the_runs_of_a_batch_end_in_one_transaction(desk) -> None:
    """An end in a transaction of its own costs more than the poll of most accounts."""
    roots = [desk.root(desk.account(f"a{number}")) for number in range(3)]
    desk.save(*(desk.outcome(root, seen=["x"]) for root in roots))
    ended = completion.end_runs(desk.conn, {root.run_id for root in roots})
    assert [run["state"] for run in ended] == ["succeeded"] * 3
    assert not {"has_seen", "has_held"} & ended[0].keys()
    transactions = "SELECT xmin::text FROM sync_run UNION SELECT xmin::text FROM user_integration"
    assert len(desk.rows(transactions)) == 1
    assert desk.rows("SELECT FROM sync_seen") == []


def test_runs_of_both_lanes_of_an_account_end_together(desk) -> None:
    root = desk.root(desk.account())
    desk.finish(root, tasks=[Task("step"), Task("step", {"number": 1}, background=True)])
    desk.save(*(desk.outcome(one) for one in desk.claim()))
    scheduling.request_resync(desk.conn, UUID(root.account_id))
    runs = [str(run) for (run,) in desk.rows("SELECT id FROM sync_run")]
    assert len(completion.end_runs(desk.conn, runs)) == 2
    assert desk.value(
        "SELECT next_sync_at <= now() AND last_sync_at <= now() FROM user_integration"
    )


def test_concurrent_ends_of_the_same_runs_do_not_deadlock(desk, connect, together) -> None:
    roots = [desk.root(desk.account(f"a{number}")) for number in range(20)]
    desk.save(*(desk.outcome(root) for root in roots))
    runs = [root.run_id for root in roots]
    orders = (runs, runs[::-1], runs[5:], runs[:15])
    ends = together(
        *(
            lambda conn=conn, order=order: completion.end_runs(conn, order)
            for conn, order in zip([connect() for _ in orders], orders, strict=True)
        )
    )
    assert sum(map(len, ends)) == 20


@pytest.mark.parametrize(("bad", "state"), [("step", "partial"), ("start", "failed")])
def test_parked_tasks_do_not_keep_a_run_open(desk, bad: str, state: str) -> None:
    root = desk.root(desk.account())
    if bad == "start":
        desk.save(parked(desk.outcome(root), "no"))
    else:
        desk.finish(root, tasks=[Task("step")])
        desk.save(parked(desk.outcome(*desk.claim()), "no"))
    (ended,) = completion.end_runs(desk.conn, {root.run_id})
    assert (ended["state"], ended["tasks_parked"], ended["error"]) == (state, 1, "no")
    assert desk.value("SELECT consecutive_failures FROM user_integration") == (
        1 if state == "failed" else 0
    )


def test_the_end_of_a_backfill_does_not_move_the_next_sync(desk) -> None:
    root = desk.root(desk.account())
    desk.finish(root, tasks=[Task("step", background=True)])
    before = desk.value("SELECT next_sync_at FROM user_integration")
    desk.finish(*desk.claim())
    assert set(desk.runs()) == {"succeeded"}
    assert desk.value("SELECT next_sync_at FROM user_integration") == before


def test_the_end_of_a_run_waits_for_a_task_that_is_being_added(desk, connect, blocked_in) -> None:
    """Without the lock on the run, the copy would be left in a run that has ended."""
    import threading

    from core.ledger.controls import retry

    bad, last = siblings(desk, 2)
    desk.save(parked(desk.outcome(bad), "no"))
    retries, ends = connect(), connect()
    thread = threading.Thread(target=completion.end_runs, args=(ends, {last.run_id}))
    with retries.transaction():
        retry(retries, [bad.task_id])
        desk.save(desk.outcome(last))
        thread.start()
        blocked_in(ends.info.backend_pid)
    thread.join()
    assert desk.runs() == ["running"]


# Polls that found nothing
# --------------------------------------------------------------------------------------------------

FIGURES = "runs, empty_runs, failed_runs, outputs_saved, outputs_deleted"


def poll(desk, account: UUID):
    """Make an account due, and return the dispatched root task of its poll."""
    desk.conn.execute("UPDATE user_integration SET next_sync_at = now() WHERE id = %s", (account,))
    ((_, claimed),) = scheduling.claim_due(desk.conn, 1).runs
    assert claimed == account
    return next(dispatch for dispatch in desk.claim() if dispatch.type == "start")


MAKE_DUE = "UPDATE user_integration SET next_sync_at = now()"


def figures(desk, account: UUID) -> list[tuple[int, ...]]:
    return [tuple(day.values())[1:] for day in daily.latest(desk.conn, account, 10)]


def test_a_poll_that_found_nothing_leaves_only_a_number(desk) -> None:
    account = desk.account()
    root = poll(desk, account)
    desk.save(desk.outcome(root, tasks=[Task("page")], seen=["kept"]))
    (page,) = desk.claim()
    desk.save(desk.outcome(page))
    (ended,) = completion.end_runs(desk.conn, {root.run_id})
    assert (ended["state"], ended["tasks_done"], str(ended["id"])) == ("succeeded", 2, root.run_id)
    assert ended["finished_at"] >= ended["started_at"]
    for table in ("sync_run", "sync_task", "sync_seen", "account_day"):
        assert desk.rows(f"SELECT FROM {table}") == []
    assert figures(desk, account) == [(1, 1, 0, 0, 0)]
    assert desk.rows(
        "SELECT last_sync_at IS NOT NULL, listing_began_at = %s, consecutive_failures, "
        "next_sync_at > now() FROM user_integration",
        ended["started_at"],
    ) == [(True, True, 0, True)]
    assert owed_by(desk.conn, account).complete_as_of == ended["started_at"]


def test_a_hundred_polls_that_found_nothing_take_no_more_rows_than_one(desk) -> None:
    account = desk.account()
    for _ in range(10):
        desk.finish(poll(desk, account))
    assert figures(desk, account) == [(10, 10, 0, 0, 0)]
    assert desk.runs() == []


def joined(desk, dispatch) -> dict:
    assert scheduling.request_run(desk.conn, UUID(dispatch.account_id))[1] is False
    return {}


KEPT = {
    "joined": joined,
    "saved": lambda *_: {"output": [TaskOutput("new")]},
    "deleted": lambda desk, one: (
        desk.conn.execute("UPDATE user_integration_content SET deleted_at = NULL")
        and {"output": [TaskOutput.gone("old")]}
    ),
    "skipped": lambda *_: {"skipped": {"too large": 1}},
    "history": lambda *_: {"tasks": [Task("step", background=True)]},
}


@pytest.mark.parametrize("why", KEPT)
def test_a_poll_that_somebody_may_look_at_is_kept(desk, why: str) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("old"))
    root = poll(desk, account)
    desk.finish(root, guard=1.0, **KEPT[why](desk, root))
    assert desk.value("SELECT state FROM sync_run WHERE id = %s", root.run_id) == "succeeded"
    assert desk.value("SELECT count(*) FROM sync_task WHERE run_id = %s", root.run_id) == 1
    assert figures(desk, account)[0][:2] == (2, 0)


@pytest.mark.parametrize("trigger", ["manual", "resync"])
def test_a_run_that_a_person_requested_is_kept(desk, trigger: str) -> None:
    desk.finish(desk.root(desk.account(), trigger=trigger))
    assert desk.runs() == ["succeeded"]


def test_a_poll_with_a_parked_task_is_kept(desk) -> None:
    account = desk.account()
    root = poll(desk, account)
    desk.save(parked(desk.outcome(root), "no"))
    completion.end_runs(desk.conn, {root.run_id})
    assert desk.runs() == ["failed"]
    assert figures(desk, account) == [(1, 0, 1, 0, 0)]


@pytest.mark.parametrize("more", [[], [Task("step", {"number": 2}, background=True)]])
def test_a_poll_that_retried_a_task_is_kept(desk, more: list[Task]) -> None:
    """The row of the retried task names its copy.

    A follow-up in the backfill makes the number of follow-ups that of a poll without a copy.
    """
    account = desk.account()
    root = desk.root(account)
    desk.save(desk.outcome(root, tasks=[Task("step")]))
    (step,) = desk.claim()
    controls.cancel_run(desk.conn, UUID(step.run_id))
    scheduling.poll(desk.conn, desk.conn.execute(MAKE_DUE).rowcount)
    root, copy = sorted(desk.claim(), key=lambda dispatch: dispatch.type == "step")
    desk.save(desk.outcome(root, tasks=more), desk.outcome(copy))
    completion.end_runs(desk.conn, {copy.run_id})
    state = "SELECT state FROM sync_run WHERE id = %s"
    assert desk.rows(state, copy.run_id) == [("succeeded",)]


def test_the_figures_of_a_day_are_moved_by_the_first_poll_of_the_next(desk) -> None:
    account = desk.account()
    for _ in range(3):
        desk.finish(poll(desk, account))
    desk.conn.execute("UPDATE user_integration SET empty_day = empty_day - 1")
    desk.finish(poll(desk, account), output=[TaskOutput("new")])
    desk.finish(poll(desk, account))
    assert figures(desk, account) == [(2, 1, 0, 1, 0), (3, 3, 0, 0, 0)]
    assert desk.rows(f"SELECT {FIGURES} FROM account_day ORDER BY day") == [
        (3, 3, 0, 0, 0),
        (1, 0, 0, 1, 0),
    ]


DUE_NOW = """
UPDATE user_integration SET next_sync_at = now() WHERE id IN (
    SELECT id FROM (SELECT id, row_number() OVER (ORDER BY created_at) AS number
        FROM user_integration) a WHERE number % 5 = 0)
"""
UPDATED = """
SELECT sum(n_tup_ins)::int, sum(n_tup_upd)::int, sum(n_tup_hot_upd)::int FROM pg_stat_user_tables
WHERE relname IN ('sync_run', 'sync_task', 'user_integration', 'account_day', 'sync_seen')
"""


def updated(desk) -> list[int]:
    """Return the numbers of inserted and updated rows, and of updates that changed no index."""
    desk.conn.execute("SELECT pg_stat_force_next_flush()")
    return list(desk.rows(UPDATED)[0])


@pytest.fixture
def counted(desk, monkeypatch) -> dict[str, int]:
    """Count the statements and the commits of the desk's connection."""
    counts = {"statements": 0, "commits": 0}
    begin = desk.conn.transaction

    def is_idle() -> bool:
        return desk.conn.info.transaction_status == TransactionStatus.IDLE

    class CountingCursor(Cursor):
        def execute(self, *args, **more):
            counts["statements"] += 1
            counts["commits"] += is_idle()
            return super().execute(*args, **more)

    def transaction():
        counts["commits"] += is_idle()
        return begin()

    monkeypatch.setattr(desk.conn, "cursor_factory", CountingCursor)
    monkeypatch.setattr(desk.conn, "transaction", transaction)
    return counts


def test_polls_that_found_nothing_take_few_statements_commits_and_row_versions(
    desk, counted
) -> None:
    """Beside the inserts of a run and a task: two versions of the task, and two of the account.

    The second version of the account changes no index.
    """
    for number in range(500):
        desk.account(str(number))
    scheduling.poll(desk.conn, 500)
    roots = desk.claim()
    desk.save(*map(desk.outcome, roots))
    completion.end_runs(desk.conn, {root.run_id for root in roots})
    assert desk.conn.execute(DUE_NOW).rowcount == 100
    portions = [
        TaskPortion(str(account), "live", 1)
        for (account,) in desk.rows("SELECT id FROM user_integration WHERE next_sync_at <= now()")
    ]
    rows = updated(desk)
    counted.update(statements=0, commits=0)
    assert len(scheduling.claim_due(desk.conn, 100).runs) == 100
    roots = dispatching.claim(desk.conn, desk.me, "shop", portions, 60.0)
    desk.save(*map(desk.outcome, roots))
    ended = completion.end_runs(desk.conn, {root.run_id for root in roots})
    assert len(ended) == 100
    assert counted["statements"] <= 11
    assert counted["commits"] <= 5
    inserts, updates, hot = (
        after - before for before, after in zip(rows, updated(desk), strict=True)
    )
    assert (inserts, updates) == (200, 400)
    assert hot >= 90


def test_the_end_of_a_short_poll_leaves_the_next_poll_that_the_claim_has_set(desk) -> None:
    account = desk.account()
    root = poll(desk, account)
    next_poll = desk.value("SELECT next_sync_at FROM user_integration")
    desk.finish(root, output=[TaskOutput("new")])
    assert desk.value("SELECT next_sync_at FROM user_integration") == next_poll
    assert desk.value(IS_AN_INTERVAL_AHEAD)


def test_the_end_of_a_long_poll_sets_the_next_poll(desk) -> None:
    root = poll(desk, desk.account())
    desk.conn.execute(
        """WITH moved AS (UPDATE sync_run SET next_sync_at = now() + interval '14 minutes')
        UPDATE user_integration SET next_sync_at = now() + interval '14 minutes'"""
    )
    desk.finish(root)
    assert desk.value(IS_AN_INTERVAL_AHEAD)


def test_a_shorter_interval_counts_from_the_end_of_the_poll(desk) -> None:
    root = poll(desk, desk.account())
    desk.conn.execute("UPDATE user_integration SET poll_interval_minutes = 5")
    desk.finish(root)
    assert desk.value(IS_AN_INTERVAL_AHEAD)


IS_AN_INTERVAL_AHEAD = """
SELECT (next_sync_at - last_sync_at) / poll_interval_minutes
    BETWEEN interval '57 seconds' AND interval '63 seconds'
FROM user_integration
"""
