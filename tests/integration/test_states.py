"""Only allowed changes of state happen, and every allowed change does happen.

Triggers record each change of state of an account, a run or a task that the engine's statements
make. `core/states.py` lists the allowed ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.state_changes import MACHINES, Change, forbidden, noted, watch

from core import Task
from core.accounts import store
from core.errors import NotFound, PollingError
from core.ledger import breakers, carry_over, completion, controls, erasure, leases, scheduling
from core.ledger.outcomes import Dispatch, Outcome, Stop
from core.service.accounts import disconnect as account_disconnect
from core.states import (
    ACCOUNTS,
    RUNS,
    STOPPED_TASKS,
    TASKS,
    AccountState,
    AccountStateReason,
    Deletions,
    HeldState,
    HoldSource,
    Lane,
    RunState,
    TaskState,
    Trigger,
    Word,
    literals,
)

A, R, T = AccountState, RunState, TaskState


# Steps
# ------------------------------------------------------------------------------------------------


def stopped(dispatch: Dispatch, reason: AccountStateReason) -> Outcome:
    """Return the outcome of a task whose account the provider refuses."""
    return Outcome(dispatch, state=T.READY, reason="refused", stop=Stop(reason, "refused", 1))


def parked(dispatch: Dispatch) -> Outcome:
    return Outcome(dispatch, state=T.PARKED, attempt=1, reason="no", error="no")


def deferred(dispatch: Dispatch) -> Outcome:
    return Outcome(dispatch, state=T.DEFERRED, attempt=1, reason="no", error="no")


def reconnect(desk: Any, account: UUID) -> None:
    names = {"id": account, "credentials": "sealed", "group": None, "public_hosts_only": False}
    desk.conn.execute(store.SET_CREDENTIALS, names)


CHANGED = {"resync": False, "reread": False, "instead_of": None}


def correct(desk: Any, account: UUID) -> None:
    """Give the account a valid configuration."""
    names = {"id": account, "config": "{}", "limits": "[]", "public_hosts_only": False}
    desk.conn.execute(store.SET_CONFIG, names | CHANGED)


def end_lease(desk: Any, dispatch: Dispatch) -> None:
    past = "UPDATE sync_task SET lease_until = now() - interval '1 second' WHERE id = %s"
    leases.start_suspect(desk.conn, dispatch.lease)
    desk.conn.execute(past, (dispatch.task_id,))
    expired = leases.expire(desk.conn)
    completion.end_runs(desk.conn, {one.run_id for one in expired})


def save(desk: Any, outcome: Outcome) -> None:
    desk.save(outcome)
    completion.end_runs(desk.conn, {outcome.dispatch.run_id})


# What each change looks like
# --------------------------------------------------------------------------------------------------

Scenario = Callable[[Any], object]
SCENARIOS: dict[Change, Scenario] = {}


def shows(*changes: tuple[Any, Word | None, Word]) -> Callable[[Scenario], Scenario]:
    """Register a scenario that makes these changes of state, and maybe others."""

    def register(scenario: Scenario) -> Scenario:
        SCENARIOS.update({(machine.table, *change): scenario for machine, *change in changes})
        return scenario

    return register


@shows(
    (ACCOUNTS, None, A.ACTIVE),
    (RUNS, None, R.RUNNING),
    (RUNS, R.RUNNING, R.SUCCEEDED),
    (TASKS, None, T.READY),
    (TASKS, T.READY, T.QUEUED),
    (TASKS, T.QUEUED, T.DONE),
)
def a_run_succeeds(desk: Any) -> None:
    desk.finish(desk.root(desk.account()))


@shows((TASKS, T.QUEUED, T.READY))
def a_task_is_tried_again(desk: Any) -> None:
    save(desk, Outcome(desk.root(desk.account()), state=T.READY, attempt=1))


@shows((TASKS, T.QUEUED, T.PARKED), (RUNS, R.RUNNING, R.PARTIAL), (TASKS, T.PARKED, T.DONE))
def a_task_is_parked_and_discarded(desk: Any) -> None:
    desk.finish(desk.root(desk.account()), tasks=[Task("step")])
    (dispatch,) = desk.claim()
    save(desk, parked(dispatch))
    controls.discard(desk.conn, [dispatch.task_id])


@shows((TASKS, T.QUEUED, T.DEFERRED), (TASKS, T.DEFERRED, T.DONE))
def a_task_is_deferred_and_discarded(desk: Any) -> None:
    desk.finish(desk.root(desk.account()), tasks=[Task("step")])
    (dispatch,) = desk.claim()
    save(desk, deferred(dispatch))
    controls.discard(desk.conn, [dispatch.task_id])


@shows((TASKS, T.READY, T.DEFERRED))
def a_task_waits_too_long_for_a_limit(desk: Any) -> None:
    account = desk.account()
    desk.finish(desk.root(account), tasks=[Task("step")])
    desk.conn.execute(
        "INSERT INTO breaker (user_integration_id, limit_name, integration_domain, types,"
        " failed_tasks, first_failed_at, opened_at, probe_at)"
        " VALUES (%s, 's', 'shop', '{step}', '{}', now(), now(), now())",
        (account,),
    )
    desk.conn.execute("UPDATE user_integration SET poll_interval_minutes = 1")
    desk.conn.execute("UPDATE breaker SET opened_at = now() - interval '1 min'")
    desk.conn.execute("UPDATE sync_run SET started_at = now() - interval '1 min'")
    for overdue in breakers.overdue_limits(desk.conn):
        breakers.defer_waiting(desk.conn, overdue)


@shows((RUNS, R.RUNNING, R.FAILED))
def the_root_task_is_parked(desk: Any) -> None:
    save(desk, parked(desk.root(desk.account())))


@shows(
    (RUNS, R.RUNNING, R.CANCELLED),
    (TASKS, T.READY, T.CANCELLED),
    (TASKS, T.QUEUED, T.CANCELLED),
    (TASKS, T.CANCELLED, T.DONE),
)
def a_run_is_cancelled_and_its_tasks_are_discarded(desk: Any) -> None:
    root = desk.root(desk.account())
    desk.add(UUID(root.run_id), "ready")
    controls.cancel_run(desk.conn, UUID(root.run_id))
    controls.discard(desk.conn, list(desk.tasks()))


@shows((ACCOUNTS, A.ACTIVE, A.PAUSED), (ACCOUNTS, A.PAUSED, A.ACTIVE))
def an_account_is_paused_and_resumed(desk: Any) -> None:
    account = desk.account()
    desk.conn.execute(store.PAUSE, (account,))
    desk.conn.execute(store.RESUME, (account,))


@shows((ACCOUNTS, A.ACTIVE, A.ERROR), (ACCOUNTS, A.ERROR, A.ACTIVE))
def an_account_stops_and_is_corrected(desk: Any) -> None:
    account = desk.account()
    save(desk, stopped(desk.root(account), AccountStateReason.CONFIGURATION))
    correct(desk, account)


@shows((ACCOUNTS, A.ACTIVE, A.DISCONNECTED), (ACCOUNTS, A.DISCONNECTED, A.ACTIVE))
def an_account_is_disconnected_and_reconnected(desk: Any) -> None:
    account = desk.account()
    account_disconnect.disconnect(desk.conn, account)
    reconnect(desk, account)


@shows((ACCOUNTS, A.PAUSED, A.DISCONNECTED))
def a_paused_account_is_disconnected(desk: Any) -> None:
    account = desk.account()
    desk.conn.execute(store.PAUSE, (account,))
    account_disconnect.disconnect(desk.conn, account)


@shows((ACCOUNTS, A.ERROR, A.DISCONNECTED))
def a_stopped_account_is_disconnected(desk: Any) -> None:
    account = desk.account()
    save(desk, stopped(desk.root(account), AccountStateReason.CREDENTIALS))
    account_disconnect.disconnect(desk.conn, account)


def hide(desk: Any, account: UUID, *, now: bool = False) -> None:
    account_disconnect.hide(desk.conn, account, erases_account=False, now=now)


@shows((ACCOUNTS, A.ACTIVE, A.ERASING), (ACCOUNTS, A.ERASING, A.ACTIVE))
def an_account_is_hidden_and_restored(desk: Any) -> None:
    account = desk.account()
    hide(desk, account)
    reconnect(desk, account)


@shows((ACCOUNTS, A.PAUSED, A.ERASING))
def a_paused_account_is_hidden(desk: Any) -> None:
    account = desk.account()
    desk.conn.execute(store.PAUSE, (account,))
    hide(desk, account)


@shows((ACCOUNTS, A.ERROR, A.ERASING))
def a_stopped_account_is_hidden(desk: Any) -> None:
    account = desk.account()
    save(desk, stopped(desk.root(account), AccountStateReason.CREDENTIALS))
    hide(desk, account)


@shows((ACCOUNTS, A.DISCONNECTED, A.ERASING), (ACCOUNTS, A.ERASING, A.DISCONNECTED))
def a_disconnected_account_is_erased(desk: Any) -> None:
    account = desk.account()
    account_disconnect.disconnect(desk.conn, account)
    hide(desk, account, now=True)
    assert erasure.erase_due(desk.conn, None, 60)


ALLOWED = [
    (machine.table, transition.source, transition.target)
    for machine in MACHINES.values()
    for transition in machine.transitions
    if not transition.planned
]


@pytest.mark.parametrize("change", ALLOWED, ids=lambda change: "-".join(map(str, change)))
def test_every_allowed_change_happens(desk: Any, change: Change) -> None:
    watch(desk.conn)
    SCENARIOS[change](desk)
    changes = noted(desk.conn)
    assert change in changes
    assert not forbidden(changes)


def test_every_change_of_a_scenario_is_an_allowed_one() -> None:
    assert not set(SCENARIOS) - set(ALLOWED)


# Random changes
# ------------------------------------------------------------------------------------------------

Choose = Callable[[Any], Any]
"""A function that chooses one of several options."""


class World:
    """Two accounts and their dispatches; a dispatch may finish twice, and late."""

    def __init__(self, desk: Any, choose: Choose) -> None:
        self.desk, self.conn, self.choose = desk, desk.conn, choose
        self.accounts = [desk.account(name) for name in ("one", "two")]
        self.dispatches: list[Dispatch] = []

    @property
    def account(self) -> UUID:
        return self.choose(self.accounts)

    def tick(self) -> None:
        self.conn.execute("UPDATE user_integration SET next_sync_at = now()")
        scheduling.claim_due(self.conn, 10)
        self.conn.execute("UPDATE sync_run SET joined = true")  # the end of a run keeps its row

    def request(self) -> None:
        scheduling.request_run(self.conn, self.account)

    def dispatch(self) -> None:
        self.dispatches += self.desk.claim()

    def finish(self) -> None:
        dispatch = self.choose(self.dispatches)
        new = [
            Task("step", key=key, background=key in "ab") for key in self.choose(["", "ac", "b"])
        ]
        save(self.desk, self.desk.outcome(dispatch, tasks=new))

    def fail(self) -> None:
        dispatch = self.choose(self.dispatches)
        again = Outcome(dispatch, state=T.READY, attempt=1)
        outcomes = [again, replace(again, snooze=1), replace(again, suspect=True, crash=1)]
        outcomes += [
            parked(dispatch),
            deferred(dispatch),
            *(stopped(dispatch, reason) for reason in AccountStateReason),
        ]
        save(self.desk, self.choose(outcomes))

    def continue_deferred(self) -> None:
        carry_over.continue_deferred(self.conn, 10)

    def end_lease(self) -> None:
        end_lease(self.desk, self.choose(self.dispatches))

    def release(self) -> None:
        dispatch = self.choose(self.dispatches)
        leases.release(self.conn, [dispatch.lease])

    def disconnect(self) -> None:
        account_disconnect.disconnect(self.conn, self.account)

    def change_account(self) -> None:
        account = self.account
        changes: list[Callable[[], object]] = [
            lambda: self.conn.execute(store.PAUSE, (account,)),
            lambda: self.conn.execute(store.RESUME, (account,)),
            lambda: self.conn.execute(store.RESUME_STOPPED, (account,)),
            lambda: reconnect(self.desk, account),
            lambda: correct(self.desk, account),
            lambda: self.desk.account(self.choose(["one", "two"])),
            lambda: hide(self.desk, account),
        ]
        self.choose(changes)()

    def cancel(self) -> None:
        runs = self.desk.rows("SELECT id FROM sync_run ORDER BY started_at, lane")
        controls.cancel_run(self.conn, self.choose(runs)[0])

    def retry_or_discard(self) -> None:
        found = self.desk.rows(
            f"SELECT id FROM sync_task WHERE state IN ({literals(STOPPED_TASKS)}) ORDER BY id"
        )
        self.choose([controls.retry, controls.discard])(self.conn, [self.choose(found)[0]])


STEPS = [
    *(World.dispatch, World.finish, World.fail) * 3,
    *(World.tick, World.request, World.end_lease, World.release, World.change_account) * 2,
    *(World.disconnect, World.cancel, World.retry_or_discard, World.continue_deferred),
]
EMPTY = """
TRUNCATE sync_task, sync_run, user_integration_content, sync_seen, sync_state, user_integration
CASCADE
"""


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_only_allowed_changes_happen(watched: Any, data: st.DataObject) -> None:
    """Any actions on accounts, runs and tasks may follow each other in any order."""
    watched.conn.execute(EMPTY)

    def choose(options: Any) -> Any:
        """Return one of the options; without any, the step ends."""
        if not options:
            raise NotFound("content-not-found", content="anything to choose from")
        return options[data.draw(st.integers(0, len(options) - 1))]

    world = World(watched, choose)
    for step in data.draw(st.lists(st.sampled_from(STEPS), min_size=20, max_size=60)):
        with suppress(PollingError):
            step(world)
        assert not forbidden(noted(watched.conn)), step.__name__


@pytest.fixture
def watched(desk: Any) -> Any:
    watch(desk.conn)
    return desk


def test_the_tables_hold_the_words_of_the_enums(conn: Any) -> None:
    """Compare the CHECK constraints of the migrations with the enums."""
    checks = dict(
        conn.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'"
        ).fetchall()
    )
    expected = {
        "user_integration_sync_status": AccountState,
        "sync_run_lane": Lane,
        "sync_run_trigger": Trigger,
        "sync_run_state": RunState,
        "sync_task_state": TaskState,
        "user_integration_deletions": Deletions,
        "held_deletion_source": HoldSource,
        "held_deletion_state": HeldState,
    }
    for name, words in expected.items():
        assert set(re.findall(r"'(\w+)'", checks[name])) == set(words), name
