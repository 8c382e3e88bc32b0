"""Breakers: failures in a row hold back the tasks of one account, or of one of its limits."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from core import Task
from core.accounts import store
from core.dispatcher.allocation import Places, Rules, allocate
from core.ledger import breakers, carry_over, completion, dispatching, leases, pruning
from core.ledger.dispatching import TaskPortion
from core.ledger.outcomes import Block, Dispatch, Failure, Outcome
from core.service.accounts import actions

WINDOW = 50
COSTS: dict[str, dict[str, int]] = {"step": {}, "page": {}}
PASSED = "UPDATE breaker SET probe_at = now() - interval '1 s'"
DUE = "UPDATE sync_task SET available_at = now() - interval '1 s' WHERE state = 'deferred'"
STATE = "SELECT limit_name, failures, opened_at IS NOT NULL, failed_probes FROM breaker ORDER BY 1"
PAUSE = "SELECT extract(epoch FROM probe_at - now())::float FROM breaker WHERE limit_name = ''"


def dispatch(desk: Any) -> list[Dispatch]:
    """Dispatch as the leader does."""
    waiting = dispatching.look(desk.conn, "shop", 64).accounts
    blocks = dispatching.blocks(desk.conn, [each.account for each in waiting])
    flying = dispatching.in_flight(desk.conn, "shop")
    portions = allocate(
        WINDOW, Places(WINDOW, 1), flying, waiting, Rules("shop", COSTS, {}, blocks)
    )
    return desk.claim(*portions) if portions else []


def with_steps(desk: Any, account: UUID, steps: int = 8, **more: Any) -> list[Dispatch]:
    """Return the dispatched steps of a new run."""
    tasks = [Task("step", {"number": number}) for number in range(steps)]
    desk.finish(desk.root(account), tasks=tasks, **more)
    return dispatch(desk)


def failed(one: Dispatch, *, deferred: bool = False, **failure: Any) -> Outcome:
    state = "deferred" if deferred else "ready"
    why = Failure("down", **failure)
    return Outcome(one, state=state, attempt=1, reason="down", error="down", failure=why)


def away(one: Dispatch, requested: float = 0.0) -> Outcome:
    return Outcome(one, state="ready", reason="down", failed_probe=requested)


def open_breaker(desk: Any, account: UUID, **failure: Any) -> list[Dispatch]:
    """Open a breaker with five failures. Return the dispatches of eight steps."""
    steps = with_steps(desk, account)
    desk.save(*(failed(one, **failure) for one in steps[:5]))
    return steps


def attempts(desk: Any) -> list[int]:
    return [
        n for (n,) in desk.rows("SELECT attempts FROM sync_task WHERE type = 'step' ORDER BY id")
    ]


def test_five_failures_in_a_row_hold_back_the_tasks_of_their_account_alone(desk) -> None:
    account, other = desk.account("a"), desk.account("b")
    steps = with_steps(desk, account)
    desk.save(*(failed(one) for one in steps[:4]))
    assert [one.task_id for one in dispatch(desk)] == [one.task_id for one in steps[:4]]
    desk.save(failed(steps[4]))
    assert desk.rows(STATE) == [("", 5, True, 0)]
    assert dispatch(desk) == []
    assert len(with_steps(desk, other)) == 8


def test_a_success_in_between_keeps_a_breaker_closed(desk) -> None:
    steps = with_steps(desk, desk.account())
    desk.save(*(failed(one) for one in steps[:4]))
    desk.finish(steps[4])
    assert desk.rows(STATE) == []
    desk.save(*(failed(one) for one in steps[5:]))
    assert desk.rows(STATE) == [("", 3, False, 0)]


def test_a_root_task_is_no_success_because_it_calls_no_provider(desk) -> None:
    account = desk.account()
    open_breaker(desk, account)
    desk.conn.execute("UPDATE sync_task SET state = 'done'")
    completion.end_forgotten_runs(desk.conn)
    desk.finish(desk.root(account), tasks=[Task("page")])
    assert desk.rows(STATE) == [("", 5, True, 0)]


def test_one_failure_that_does_not_pass_counts_on_no_breaker(desk) -> None:
    steps = with_steps(desk, desk.account())
    for one in steps:
        desk.save(Outcome(one, state="ready", attempt=1, error="KeyError"))
    assert desk.rows(STATE) == []


def test_one_probe_runs_after_each_pause_and_pauses_grow_to_15_minutes(desk) -> None:
    open_breaker(desk, desk.account())
    pauses = []
    for _ in range(10):
        assert dispatch(desk) == []
        desk.conn.execute(PASSED)
        (probe,) = dispatch(desk)
        assert probe.probe
        assert dispatch(desk) == []
        desk.save(away(probe))
        pauses.append(desk.value(PAUSE))
    assert 4 < pauses[0] <= 10
    assert pauses[1] <= 20
    assert 440 < pauses[-1] <= 900
    assert desk.value("SELECT failed_probes FROM breaker") == 10


def test_a_portion_has_one_probe_although_its_breaker_opened_after_the_leader_read_it(desk) -> None:
    """The leader reads the breakers, then claims; a saver may open a breaker between the two."""
    account = desk.account()
    open_breaker(desk, account)
    late = desk.claim(TaskPortion(str(account), "live", 2))
    assert [one.probe for one in late] == [False, False]
    desk.conn.execute(PASSED)
    tasks = desk.claim(TaskPortion(str(account), "live", 3))
    assert [one.probe for one in tasks] == [True, False, False]
    sent = dispatching.as_sent(desk.conn, [(one.task_id, one.dispatch_no) for one in tasks])
    assert {one.task_id: one.probe for one in sent} == {one.task_id: one.probe for one in tasks}


def test_a_probe_counts_once_however_many_tasks_report_it(desk) -> None:
    account = desk.account()
    open_breaker(desk, account)
    desk.conn.execute(PASSED)
    probe, *others = desk.claim(TaskPortion(str(account), "live", 5))
    desk.save(*map(away, others))
    assert desk.rows(STATE) == [("", 5, True, 0)]
    desk.save(away(probe), away(probe))
    assert desk.rows(STATE) == [("", 5, True, 1)]


def test_a_probe_whose_process_died_is_repeated(desk) -> None:
    open_breaker(desk, desk.account())
    desk.conn.execute(PASSED)
    (probe,) = dispatch(desk)
    desk.conn.execute("UPDATE sync_task SET state = 'ready' WHERE id = %s", (probe.task_id,))
    (again,) = dispatch(desk)
    assert again.probe
    assert again.dispatch_no > 1


def test_a_probe_that_kills_its_process_counts_no_crash_and_its_pause_grows(desk) -> None:
    open_breaker(desk, desk.account())
    for number in range(5):
        desk.conn.execute(PASSED)
        desk.conn.execute("UPDATE sync_task SET available_at = now() WHERE state = 'ready'")
        [probe] = dispatch(desk)
        assert probe.suspect == (number > 0)
        assert not probe.suspect or leases.start_suspect(desk.conn, probe.lease)
        desk.conn.execute("UPDATE sync_task SET lease_until = now() WHERE state = 'queued'")
        assert {task.state for task in leases.expire(desk.conn)} == {"ready"}
        assert desk.rows(STATE) == [("", 5, True, number + 1)]
        assert attempts(desk) == [0] * 8
    assert desk.value("SELECT max(crashes) FROM sync_task") == 0
    assert 80 <= desk.value(PAUSE) <= 160


def test_a_task_that_kills_its_process_after_its_probe_counts_a_crash(desk) -> None:
    account = desk.account()
    open_breaker(desk, account)
    desk.conn.execute("UPDATE sync_task SET suspect = true WHERE state = 'ready'")
    desk.conn.execute(PASSED)
    [probe] = dispatch(desk)
    assert leases.start_suspect(desk.conn, probe.lease)
    breakers.close_account(desk.conn, account)
    desk.conn.execute("UPDATE sync_task SET lease_until = now() WHERE state = 'queued'")
    leases.expire(desk.conn)
    assert desk.value("SELECT max(crashes) FROM sync_task") == 1


def test_a_rate_limited_probe_keeps_the_other_tasks_waiting(desk) -> None:
    open_breaker(desk, desk.account())
    desk.conn.execute(PASSED)
    [probe] = dispatch(desk)
    block = Block("a limit of other tasks", 60.0, "slow")
    desk.save(Outcome(probe, state="ready", delay=60.0, snooze=1, block=block))
    desk.conn.execute("UPDATE sync_task SET available_at = now() WHERE state = 'ready'")
    assert dispatch(desk) == []
    assert 50 < desk.value(PAUSE) <= 60
    assert desk.rows(STATE) == [("", 5, True, 0)]


def test_a_provider_that_asks_for_a_longer_pause_gets_it(desk) -> None:
    open_breaker(desk, desk.account(), requested=600.0)
    assert 590 < desk.value(PAUSE) <= 600
    desk.conn.execute(PASSED)
    (probe,) = dispatch(desk)
    desk.save(away(probe, 3_600.0))
    assert 3_590 < desk.value(PAUSE) <= 3_600


def test_an_account_that_does_not_answer_counts_no_attempts(desk) -> None:
    steps = open_breaker(desk, desk.account())
    assert attempts(desk) == [1, 1, 1, 1, 1, 0, 0, 0]
    desk.conn.execute(PASSED)
    (probe,) = dispatch(desk)
    desk.save(away(probe))
    assert attempts(desk) == [0] * 8
    assert desk.value("SELECT count(first_failed_at) FROM sync_task") == 0
    # A task that was in flight fails later.
    desk.save(failed(steps[6]), failed(steps[7], deferred=True))
    assert attempts(desk) == [0] * 8
    assert desk.tasks()[steps[7].task_id] == "ready"


def test_an_account_that_answers_keeps_the_attempts(desk) -> None:
    account = desk.account()
    open_breaker(desk, account)
    breakers.close_account(desk.conn, account)
    assert attempts(desk) == [1, 1, 1, 1, 1, 0, 0, 0]
    assert len([one for one in dispatch(desk) if not one.probe]) == 5


def test_while_an_account_is_away_its_run_stays_open_and_nothing_is_copied(desk) -> None:
    account = desk.account()
    steps = with_steps(desk, account)
    desk.save(*(failed(one, deferred=True) for one in steps))
    completion.end_runs(desk.conn, {steps[0].run_id})
    assert desk.runs() == ["running"]
    assert set(desk.tasks().values()) == {"done", "ready"}


def test_a_task_that_would_be_deferred_stays_in_its_run_while_its_account_is_away(desk) -> None:
    steps = open_breaker(desk, desk.account())
    desk.save(failed(steps[5], deferred=True), failed(steps[6]))
    states = dict(desk.rows("SELECT id, state FROM sync_task WHERE finished_at IS NULL"))
    assert {states[one.task_id] for one in steps[5:7]} == {"ready"}
    reasons = "SELECT reason, deferrals FROM sync_task WHERE id = %s"
    assert desk.rows(reasons, steps[5].task_id) == [("down", 0)]


def test_the_breaker_of_a_limit_without_tasks_is_forgotten(desk) -> None:
    """Nothing would probe it: its type was removed, or a person discarded its tasks."""
    account, other = desk.account("a"), desk.account("b")
    open_breaker(desk, account, limit="pages", types=["page", "step"])
    open_breaker(desk, other, limit="gone", types=["renamed"])
    desk.conn.execute("UPDATE breaker SET probe_at = now() - interval '2 h'")
    pruning.prune(desk.conn)
    assert desk.rows("SELECT limit_name, count(*) FROM breaker GROUP BY 1 ORDER BY 1") == [
        ("", 2),
        ("pages", 1),
    ]
    desk.conn.execute("UPDATE sync_task SET state = 'deferred', available_at = now()")
    pruning.prune(desk.conn)
    assert desk.value("SELECT count(*) FROM breaker") == 3
    desk.conn.execute("UPDATE sync_task SET state = 'done'")
    pruning.prune(desk.conn)
    assert desk.rows("SELECT limit_name FROM breaker") == [("",), ("",)]


def test_a_limit_holds_back_only_the_tasks_that_use_it(desk) -> None:
    account = desk.account()
    tasks = [Task("step", {"number": n}) for n in range(6)]
    desk.finish(
        desk.root(account), tasks=[*tasks, *(Task("page", {"number": n}) for n in range(3))]
    )
    found = dispatch(desk)
    steps, pages = ([one for one in found if one.type == type] for type in ("step", "page"))
    desk.save(*(failed(one, limit="s", types=["step"]) for one in steps[:5]), failed(pages[0]))
    desk.finish(pages[1])
    assert desk.rows(STATE) == [("s", 5, True, 0)]
    assert [one.type for one in dispatch(desk)] == ["page"]
    desk.conn.execute(PASSED)
    (probe,) = dispatch(desk)
    assert (probe.type, probe.probe, probe.task_id) == ("step", False, steps[0].task_id)
    desk.save(failed(probe, limit="s", types=["step"]))
    assert desk.rows(STATE)[-1] == ("s", 6, True, 1)
    assert attempts(desk)[0] == 2
    desk.conn.execute(PASSED)
    desk.finish(*dispatch(desk))
    assert desk.value("SELECT count(*) FROM breaker") == 0
    assert len(dispatch(desk)) == 4


def test_deferred_tasks_of_an_account_that_is_away_are_postponed(desk) -> None:
    account = desk.account()
    steps = with_steps(desk, account)
    desk.save(*(failed(one, deferred=True) for one in steps[:3]))
    desk.finish(steps[3])
    desk.save(*(failed(one) for one in steps[4:]), failed(steps[4]))
    desk.conn.execute("UPDATE breaker SET opened_at = now(), probe_at = now() + interval '5 min'")
    desk.conn.execute(DUE)
    carry_over.continue_deferred(desk.conn, 10)
    assert desk.value("SELECT count(*) FROM sync_task WHERE retry_of IS NOT NULL") == 0
    wait = desk.value(
        "SELECT extract(epoch FROM min(available_at) - now())::float FROM sync_task"
        " WHERE state = 'deferred'"
    )
    assert 290 < wait <= 300


def test_a_deferred_task_becomes_the_probe_if_no_run_is_open(desk) -> None:
    account = desk.account()
    steps = with_steps(desk, account)
    desk.save(*(failed(one, deferred=True) for one in steps[:3]))
    for one in steps[3:]:
        desk.finish(one)
    desk.conn.execute(
        "INSERT INTO breaker (user_integration_id, limit_name, integration_domain, failed_tasks,"
        " first_failed_at, opened_at, probe_at) VALUES (%s, '', 'shop', '{}', now(), now(), now())",
        (account,),
    )
    desk.conn.execute(DUE)
    carry_over.continue_deferred(desk.conn, 10)
    (probe,) = dispatch(desk)
    assert probe.probe
    desk.conn.execute(DUE)
    carry_over.continue_deferred(desk.conn, 10)
    assert desk.value("SELECT count(*) FROM sync_task WHERE retry_of IS NOT NULL") == 1


def test_a_live_run_waits_for_a_limit_at_most_one_poll_interval(desk) -> None:
    account = desk.account()
    steps = open_breaker(desk, account, limit="s", types=["step"])
    for one in steps[5:]:
        desk.finish(one)
    # The successes closed the breaker: open it again.
    desk.save(*(failed(one, limit="s", types=["step"]) for one in dispatch(desk)))
    desk.conn.execute("DELETE FROM breaker WHERE limit_name = ''")
    assert breakers.overdue_limits(desk.conn) == []
    desk.conn.execute(
        "UPDATE sync_run SET started_at = now() - interval '16 min';"
        "UPDATE breaker SET opened_at = now() - interval '14 min'"
    )
    assert breakers.overdue_limits(desk.conn) == []
    desk.conn.execute("UPDATE breaker SET opened_at = now() - interval '15 min'")
    (overdue,) = breakers.overdue_limits(desk.conn)
    assert breakers.defer_waiting(desk.conn, overdue) == 5
    (run,) = completion.end_runs(desk.conn, {str(overdue.run)})
    assert (run["state"], run["tasks_deferred"], run["tasks_parked"]) == ("partial", 5, 0)
    assert desk.value("SELECT min(reason) FROM sync_task WHERE state = 'deferred'") == (
        "deferred: s does not answer"
    )


def test_a_run_of_an_account_that_is_away_does_not_end_for_a_limit(desk) -> None:
    open_breaker(desk, desk.account(), limit="s", types=["step"])
    desk.conn.execute(
        "UPDATE sync_run SET started_at = now() - interval '1 day';"
        "UPDATE breaker SET opened_at = now() - interval '1 day'"
    )
    assert desk.rows(STATE) == [("", 5, True, 0), ("s", 5, True, 0)]
    assert breakers.overdue_limits(desk.conn) == []


def test_a_requested_run_makes_the_next_probe_due(desk) -> None:
    account = desk.account()
    open_breaker(desk, account)
    desk.run(account)
    (probe,) = dispatch(desk)
    assert probe.probe


def test_a_resumed_account_is_probed_immediately(desk, backend) -> None:
    account = desk.account()
    open_breaker(desk, account)
    desk.conn.execute(store.PAUSE, (account,))
    assert dispatch(desk) == []
    actions.resume(backend, account)
    (probe,) = dispatch(desk)
    assert probe.probe
