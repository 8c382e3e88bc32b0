"""The saving transaction: a batch is committed completely, once, for current dispatches only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import BaseModel

from core import Task
from core.errors import StateContended
from core.ledger import scheduling
from core.ledger.finish import MAX_ERRORS
from core.ledger.leadership import renew_epoch, status
from core.ledger.outcomes import Block, Outcome, Stop, parked
from core.results.rows import OutputRow
from core.results.text import is_storable
from core.states import Operation


class Counter(BaseModel):
    count: int = 0


def steps(*numbers: int, **given: object) -> list[Task]:
    return [Task("step", {"number": number}, **given) for number in numbers]


# The fence
# --------------------------------------------------------------------------------------------------


def everything(desk) -> list[object]:
    return [
        desk.rows(f"SELECT * FROM {table} ORDER BY 1, 2")
        for table in ("sync_task", "user_integration_content", "sync_state")
    ]


@pytest.mark.parametrize("wrong", ["dispatch_no", "epoch", "task_id", "token"])
def test_nothing_is_kept_of_a_result_that_does_not_match(desk, wrong: str) -> None:
    from core import TaskOutput

    dispatch = desk.root(desk.account())
    stray = replace(dispatch, **{wrong: getattr(dispatch, wrong) + 1})
    before = everything(desk)
    saved = desk.save(
        desk.outcome(stray, output=[TaskOutput("a", "x")], tasks=steps(1), state={"p": Counter()})
    )
    assert saved.applied == []
    assert not saved.added
    assert everything(desk) == before


def test_a_dispatch_gets_other_random_bits_each_time(desk) -> None:
    """After a failover that lost a dispatch, its numbers repeat. Its result must match nothing."""
    lost = desk.root(desk.account())
    desk.conn.execute("UPDATE sync_task SET state = 'ready', dispatch_no = 0, token = NULL")
    (dispatch,) = desk.claim()
    assert (dispatch.task_id, dispatch.dispatch_no) == (lost.task_id, lost.dispatch_no)
    assert len(desk.save(desk.outcome(lost), desk.outcome(dispatch)).applied) == 1
    assert dispatch.token is not None


def test_each_dispatch_of_a_claim_gets_its_own_random_bits(desk) -> None:
    desk.save(desk.outcome(desk.root(desk.account()), tasks=steps(*range(20))))
    assert len({dispatch.token for dispatch in desk.claim()}) == 20


def test_a_result_without_a_token_is_saved_once(desk) -> None:
    """A message of a version without tokens has none, also beside one that has it."""
    dispatch = desk.root(desk.account())
    old = desk.outcome(replace(dispatch, token=None), tasks=steps(1))
    new = desk.outcome(dispatch, tasks=steps(1))
    assert len(desk.save(old, new).applied) == 1
    assert desk.value("SELECT count(*) FROM sync_task WHERE type = 'step'") == 1


def test_a_dispatch_of_a_version_without_tokens_is_saved(desk) -> None:
    dispatch = desk.root(desk.account())
    desk.conn.execute("UPDATE sync_task SET token = NULL")
    assert desk.save(desk.outcome(dispatch)).applied == []
    assert len(desk.save(desk.outcome(replace(dispatch, token=None))).applied) == 1


def test_the_same_result_twice_is_saved_once(desk) -> None:
    from core import TaskOutput

    outcome = desk.outcome(desk.root(desk.account()), output=[TaskOutput("a", "x")], tasks=steps(1))
    assert len(desk.save(outcome).applied) == 1
    before = everything(desk)
    assert desk.save(outcome).applied == []
    assert len(desk.save(outcome, outcome).applied) == 0
    assert everything(desk) == before


def test_concurrent_savers_of_one_result_save_it_once(desk, connect, together) -> None:
    dispatches = [desk.root(desk.account(f"a{number}")) for number in range(20)]
    outcomes = [desk.outcome(dispatch, tasks=steps(1, 2)) for dispatch in dispatches]
    conns = [connect() for _ in range(4)]
    saved = together(*(lambda conn=conn: desk.save(*outcomes, conn=conn) for conn in conns))
    assert sum(len(one.applied) for one in saved) == 20
    assert desk.value("SELECT count(*) FROM sync_task WHERE type = 'step'") == 40


def test_results_of_the_previous_epoch_are_refused(desk) -> None:
    dispatch = desk.root(desk.account())
    renew_epoch(desk.conn, status(desk.conn).epoch)
    assert desk.save(desk.outcome(dispatch)).applied == []


def test_a_batch_is_saved_completely_or_not_at_all(desk) -> None:
    from core import TaskOutput

    good, bad = desk.root(desk.account("a")), desk.root(desk.account("b"))
    broken = desk.outcome(bad)
    broken.outputs = [OutputRow(Operation.KEEP, "x", kind=None)]
    before = everything(desk)
    with pytest.raises(Exception, match="null value"):
        desk.save(desk.outcome(good, output=[TaskOutput("a")]), broken)
    assert everything(desk) == before


# The task's own row
# --------------------------------------------------------------------------------------------------


def test_the_row_of_a_task_shows_its_outcome(desk) -> None:
    dispatch = desk.root(desk.account())
    saved = desk.save(
        Outcome(
            dispatch,
            state="ready",
            delay=60,
            attempt=1,
            reason="down",
            error="TransientError: down",
        )
    )
    assert saved.added
    row = desk.rows(
        "SELECT state, attempts, snoozes, reason, errors->0->>'error', lease_until, "
        "extract(epoch FROM available_at - now()) > 55 FROM sync_task"
    )
    assert row == [("ready", 1, 0, "down", "TransientError: down", None, True)]
    desk.conn.execute("UPDATE sync_task SET available_at = now()")
    (again,) = desk.claim()
    assert (again.attempts, again.dispatch_no) == (1, 2)
    desk.save(parked(desk.outcome(again), "no"))
    assert desk.rows("""
        SELECT state, attempts, reason, jsonb_array_length(errors), finished_at IS NOT NULL
        FROM sync_task
        """) == [("parked", 2, "no", 2, True)]


def test_only_the_latest_errors_are_kept(desk) -> None:
    dispatch = desk.root(desk.account())
    for number in range(MAX_ERRORS + 5):
        desk.save(Outcome(dispatch, state="ready", error=str(number)))
        (dispatch,) = desk.claim()
    errors = desk.value("SELECT errors FROM sync_task")
    assert [error["error"] for error in errors] == [
        str(number) for number in range(5, MAX_ERRORS + 5)
    ]


def test_a_block_applies_to_all_and_is_never_shortened(desk) -> None:
    first, second = desk.root(desk.account("a")), desk.root(desk.account("b"))
    desk.save(
        Outcome(first, state="ready", block=Block("k", 100, "x")),
        Outcome(second, state="ready", block=Block("k", 1, "y")),
    )
    assert desk.value("SELECT extract(epoch FROM until - now()) > 90 FROM limit_block")


def test_an_account_stops_only_if_its_credentials_are_still_the_newest(desk) -> None:
    account = desk.account()
    dispatch = desk.root(account)
    desk.save(Outcome(dispatch, state="ready", stop=Stop("credentials", "expired", 0)))
    assert desk.value("SELECT sync_status FROM user_integration") == "active"
    (dispatch,) = desk.claim()
    desk.save(Outcome(dispatch, state="ready", stop=Stop("credentials", "expired", 1)))
    assert desk.rows("SELECT sync_status, status_reason, status_detail FROM user_integration") == [
        ("error", "credentials", "expired")
    ]
    assert list(desk.tasks().values()) == ["ready"]


def test_a_paused_account_stays_paused_when_its_credentials_fail(desk) -> None:
    account = desk.account()
    dispatch = desk.root(account)
    desk.conn.execute("UPDATE user_integration SET sync_status = 'paused'")
    desk.save(Outcome(dispatch, state="ready", stop=Stop("credentials", "expired", 1)))
    assert desk.value("SELECT sync_status FROM user_integration") == "paused"


# State
# --------------------------------------------------------------------------------------------------


def state(desk) -> dict[str, object]:
    return dict(desk.rows("SELECT partition, value FROM sync_state ORDER BY 1"))


def version(desk, partition: str = "p") -> int:
    rows = desk.rows("SELECT version FROM sync_state WHERE partition = %s", partition)
    return rows[0][0] if rows else 0


def test_a_state_is_written_with_its_task_and_can_be_removed(desk) -> None:
    account = desk.account()
    desk.keep(account, state={"p": Counter(count=1), "q": Counter(count=2)})
    assert state(desk) == {"p": {"count": 1}, "q": {"count": 2}}
    desk.keep(account, state={"p": None})
    assert state(desk) == {"p": None, "q": {"count": 2}}


def many(desk, count: int):
    """Return `count` dispatched tasks of one run."""
    desk.finish(desk.root(desk.account()), tasks=steps(*range(count)))
    return desk.claim()


def test_a_state_write_after_an_outdated_read_drops_the_complete_result(desk) -> None:
    from core import TaskOutput

    first, second = many(desk, 2)
    desk.save(desk.outcome(first, read={"p": 0}, state={"p": Counter(count=1)}))
    saved = desk.save(
        desk.outcome(
            second,
            read={"p": 0},
            state={"p": Counter(count=9)},
            output=[TaskOutput("a")],
            tasks=steps(7),
        )
    )
    assert [state for _, state in saved.applied] == ["ready"]
    assert state(desk) == {"p": {"count": 1}}
    assert desk.content() == {}
    assert desk.value("SELECT count(*) FROM sync_task WHERE payload = '{\"number\": 7}'") == 0
    assert desk.rows("SELECT attempts FROM sync_task WHERE id = %s", second.task_id) == [(0,)]


def test_of_two_writers_that_read_the_same_state_one_runs_again(desk) -> None:
    first, second = many(desk, 2)
    saved = desk.save(
        *(
            desk.outcome(one, read={"p": 0}, state={"p": Counter(count=1)})
            for one in (first, second)
        )
    )
    assert sorted(state for _, state in saved.applied) == ["done", "ready"]
    assert version(desk) == 1


def test_concurrent_increments_of_a_counter_lose_none(desk, connect, together) -> None:
    dispatches = many(desk, 12)

    def raise_counter(dispatch, conn) -> None:
        while True:
            found = conn.execute(
                "SELECT value, version FROM sync_state WHERE partition = 'p'"
            ).fetchone() or (
                {"count": 0},
                0,
            )
            outcome = desk.outcome(
                dispatch, read={"p": found[1]}, state={"p": Counter(count=found[0]["count"] + 1)}
            )
            if desk.save(outcome, conn=conn).applied[0][1] == "done":
                return
            conn.execute("UPDATE sync_task SET state = 'queued' WHERE id = %s", (dispatch.task_id,))

    conns = [connect() for _ in dispatches]
    assert (
        together(
            *(lambda d=d, c=c: raise_counter(d, c) for d, c in zip(dispatches, conns, strict=True))
        )
        == [None] * 12
    )
    assert state(desk) == {"p": {"count": 12}}


def test_an_earlier_task_that_has_read_the_newest_state_may_write_it(desk) -> None:
    early, late = many(desk, 2)
    desk.save(desk.outcome(late, read={"p": 0}, state={"p": Counter(count=1)}))
    desk.save(desk.outcome(early, read={"p": 1}, state={"p": Counter(count=2)}))
    assert state(desk) == {"p": {"count": 2}}


@pytest.mark.parametrize("in_one_batch", [False, True])
def test_without_a_read_the_state_of_the_last_dispatched_task_wins(
    desk, in_one_batch: bool
) -> None:
    early, late = many(desk, 2)
    outcomes = [
        desk.outcome(late, state={"p": Counter(count=2)}),
        desk.outcome(early, state={"p": Counter(count=1)}),
    ]
    for batch in [outcomes] if in_one_batch else [[one] for one in outcomes]:
        assert {state for _, state in desk.save(*batch).applied} == {"done"}
    assert state(desk) == {"p": {"count": 2}}


# An expired cursor
# --------------------------------------------------------------------------------------------------


def test_an_expired_cursor_drops_its_partition_and_makes_a_resync_due(desk) -> None:
    from core import TaskOutput

    account = desk.account()
    desk.keep(account, TaskOutput("kept"), state={"p": Counter(count=1), "q": Counter(count=2)})
    dispatch = desk.root(account)
    desk.save(Outcome(dispatch, reason="expired", expired="p"))
    assert state(desk) == {"p": None, "q": {"count": 2}}
    from core.ledger.completion import end_runs

    end_runs(desk.conn, {dispatch.run_id})
    assert scheduling.poll(desk.conn, 5) == 1
    assert desk.runs() == ["succeeded", "succeeded", "running"]
    assert desk.value("SELECT trigger FROM sync_run WHERE state = 'running'") == "resync"
    assert desk.alive() == {"kept"}


def test_earlier_writers_cannot_restore_an_expired_cursor(desk) -> None:
    older, expired = many(desk, 2)
    desk.save(Outcome(expired, expired="p"))
    desk.save(desk.outcome(older, state={"p": Counter(count=1)}))
    assert state(desk) == {"p": None}


def test_tasks_running_with_an_expired_cursor_cannot_restore_it(desk) -> None:
    expired, newer = many(desk, 2)
    desk.save(desk.outcome(newer, state={"p": Counter(count=1)}))
    desk.save(Outcome(expired, expired="p"))
    assert state(desk) == {"p": None}


# Follow-ups
# --------------------------------------------------------------------------------------------------


def test_follow_ups_are_stored_in_the_plugins_order_with_their_parent(desk) -> None:
    root = desk.root(desk.account())
    saved = desk.save(
        desk.outcome(root, tasks=[Task("step", {"number": n}, priority=n % 3) for n in (3, 1, 2)])
    )
    assert saved.added
    rows = desk.rows("""
        SELECT payload->>'number', priority, parent_id, state FROM sync_task WHERE type = 'step'
        ORDER BY id
        """)
    assert rows == [(str(n), n % 3, root.task_id, "ready") for n in (3, 1, 2)]
    assert desk.value("SELECT followups FROM sync_task WHERE type = 'start'") == 3


def test_a_follow_up_with_a_delay_waits_and_keeps_its_run_open(desk) -> None:
    account = desk.account()
    root = desk.root(account)
    desk.save(desk.outcome(root, tasks=[*steps(1, delay=150.0), *steps(2)]))
    waits = "SELECT extract(epoch FROM available_at - clock_timestamp()) FROM sync_task"
    assert 140 < desk.value(f"{waits} WHERE payload->>'number' = '1'") <= 150
    (dispatch,) = desk.claim()
    desk.save(desk.outcome(dispatch))
    assert desk.claim() == []
    assert desk.value("SELECT state FROM sync_run") == "running"
    desk.conn.execute("UPDATE sync_task SET available_at = now() WHERE state = 'ready'")
    assert len(desk.claim()) == 1


def test_a_key_runs_once_in_a_run_and_again_in_the_next(desk) -> None:
    account = desk.account()
    root = desk.root(account)
    desk.save(
        desk.outcome(root, tasks=[*steps(1, 1, 2), Task("step", key="k"), Task("page", key="k")])
    )
    first, second, third = desk.claim()
    desk.save(desk.outcome(first, tasks=steps(1, 2)))
    desk.finish(second, tasks=steps(2))
    desk.finish(third)
    assert desk.runs() == ["succeeded"]
    assert desk.value("SELECT count(*) FROM sync_task") == 4
    desk.keep(account, tasks=steps(1))
    assert desk.value("SELECT count(*) FROM sync_task WHERE state = 'ready'") == 1


def test_background_follow_ups_go_to_a_run_of_their_own(desk) -> None:
    account = desk.account()
    root = desk.root(account)
    desk.finish(root, tasks=steps(1, 2, background=True))
    assert sorted(desk.rows("SELECT lane, state FROM sync_run")) == [
        ("backfill", "running"),
        ("live", "succeeded"),
    ]
    first, second = desk.claim()
    assert first.lane == "backfill"
    desk.finish(first, tasks=[*steps(3), *steps(4, background=True)])
    assert {lane for (lane,) in desk.rows("SELECT lane FROM sync_task WHERE state = 'ready'")} == {
        "backfill"
    }
    again = desk.root(account)
    desk.finish(again, tasks=steps(5, background=True))
    assert desk.value("SELECT count(*) FROM sync_run WHERE lane = 'backfill'") == 1
    for dispatch in (second, *desk.claim()):
        desk.finish(dispatch)
    assert desk.value("SELECT count(*) FROM sync_run WHERE state = 'running'") == 0


def test_concurrent_background_follow_ups_share_one_run(desk, connect, together) -> None:
    dispatches = many(desk, 8)
    conns = [connect() for _ in dispatches]
    together(
        *(
            lambda d=d, n=n, c=c: desk.save(
                desk.outcome(d, tasks=steps(100 + n, background=True)), conn=c
            )
            for n, (d, c) in enumerate(zip(dispatches, conns, strict=True))
        )
    )
    assert desk.value("SELECT count(*) FROM sync_run WHERE lane = 'backfill'") == 1
    assert (
        desk.value("SELECT count(*) FROM sync_task WHERE lane = 'backfill' AND state = 'ready'")
        == 8
    )


NO_STATE = """
CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER skip BEFORE INSERT ON sync_state FOR EACH ROW EXECUTE FUNCTION skip();
"""
"""Makes each write of a state miss its row, as if another transaction had inserted it first."""


def test_a_run_over_its_bound_adds_no_task_and_states_the_reason(desk) -> None:
    root = desk.root(desk.account())
    desk.conn.execute("UPDATE sync_run SET over_limit = 'too many'")
    desk.save(desk.outcome(root, tasks=steps(1)))
    assert desk.rows("SELECT state, reason, attempts, errors->-1->>'error' FROM sync_task") == [
        ("parked", "too many", 1, "run_limit: too many")
    ]


def test_states_that_others_keep_inserting_are_no_outage_of_the_server(desk) -> None:
    root = desk.root(desk.account())
    desk.conn.execute(NO_STATE)
    with pytest.raises(StateContended, match="other tasks keep inserting"):
        desk.save(desk.outcome(root, state={"p": Counter()}))
    assert desk.rows("SELECT state FROM sync_task") == [("queued",)]


def test_the_largest_result_is_saved(desk) -> None:
    root = desk.root(desk.account())
    desk.save(desk.outcome(root, tasks=(Task("step", {"number": n}) for n in range(20_000))))
    assert desk.value("SELECT count(*) FROM sync_task") == 20_001


def test_the_message_of_any_exception_can_be_saved(desk) -> None:
    from core.middleware.retries import outcome_of
    from core.results.decisions import RetryPolicy

    dispatch = desk.root(desk.account())
    outcome = outcome_of(
        dispatch, ValueError("\x00\ud800\x1b"), RetryPolicy(), None, str, lambda _: 0
    )
    desk.save(outcome)
    reason, error = desk.rows("SELECT reason, errors->0->>'error' FROM sync_task")[0]
    assert is_storable(reason + error)
