"""Paused integrations: no account is claimed, nothing is lost, and the accounts resume spread."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.signed_in import signed_in

from core import Task
from core.accounts import store
from core.errors import InvalidInput, NotFound, WrongState
from core.ledger import breakers, carry_over, completion, pauses, scheduling
from core.ledger.opening import open_run
from core.ledger.outcomes import Outcome
from core.service import lookup
from core.service.accounts import blockers
from core.service.fleet import pauses as service

ENTRY = {"domain": "shop", "name": "Shop", "version": "1", "tasks": {}, "max_tasks": 9}
ENDED = "UPDATE integration SET paused_until = now() - interval '1 s'"


def pause(desk: Any, until: datetime | None = None) -> None:
    pauses.pause(desk.conn, ENTRY, until)


def leader_works(desk: Any) -> None:
    """Do the leader's job until nothing is left."""
    while pauses.hold_accounts(desk.conn) | pauses.end_pauses(desk.conn):
        pass


def test_no_account_of_a_paused_integration_is_claimed(desk) -> None:
    paused, other = desk.account("a"), desk.account("b", domain="other")
    pause(desk)
    assert [account for _, account in scheduling.claim_due(desk.conn, 10).runs] == [other]
    leader_works(desk)
    assert desk.value("SELECT next_sync_at FROM user_integration WHERE id = %s", paused) is None
    assert scheduling.claim_due(desk.conn, 10).runs == []


def test_after_a_pause_accounts_become_due_spread_over_their_interval(desk) -> None:
    desk.conn.execute(
        "INSERT INTO user_integration (id, user_id, integration_domain, name, identity, config,"
        " next_sync_at) SELECT gen_random_uuid(), 'u', 'shop', n::text, n::text, '{}', now()"
        " FROM generate_series(1, 2500) n"
    )
    pause(desk)
    leader_works(desk)
    assert desk.value("SELECT count(next_sync_at) FROM user_integration") == 0
    assert pauses.resume(desk.conn, "shop")
    assert scheduling.claim_due(desk.conn, 10).runs == []
    leader_works(desk)
    assert desk.rows("SELECT paused_at, paused_until FROM integration") == [(None, None)]
    spread = desk.rows(
        "SELECT width_bucket(extract(epoch FROM next_sync_at - now()), 0, 900, 3) AS third,"
        " count(*) FROM user_integration GROUP BY 1 ORDER BY 1"
    )
    assert [third for third, _ in spread] in ([1, 2, 3], [0, 1, 2, 3])
    assert all(count > 650 for third, count in spread if third)


def test_a_pause_ends_by_itself_at_its_time(desk) -> None:
    account = desk.account()
    pause(desk, datetime.now(UTC) + timedelta(hours=1))
    leader_works(desk)
    assert pauses.lasting(desk.conn).keys() == {"shop"}
    desk.conn.execute(ENDED)
    assert not pauses.lasting(desk.conn)
    leader_works(desk)
    assert desk.value("SELECT next_sync_at > now() FROM user_integration WHERE id = %s", account)


def test_a_second_pause_changes_only_the_end(desk) -> None:
    pause(desk)
    first = pauses.lasting(desk.conn)["shop"]
    until = datetime.now(UTC) + timedelta(hours=1)
    pause(desk, until)
    second = pauses.lasting(desk.conn)["shop"]
    assert (second.since, second.until) == (first.since, until)


def test_deferred_tasks_wait_for_the_end_of_a_pause(desk) -> None:
    desk.finish(desk.root(desk.account()), tasks=[Task("step")])
    (step,) = desk.claim()
    desk.save(Outcome(step, state="deferred", delay=60, attempt=1, reason="x", error="x"))
    completion.end_runs(desk.conn, {step.run_id})
    pause(desk)
    due = "UPDATE sync_task SET available_at = now() WHERE state = 'deferred'"
    desk.conn.execute(due)
    carry_over.continue_deferred(desk.conn, 10)
    assert desk.runs() == ["partial"]
    pauses.resume(desk.conn, "shop")
    leader_works(desk)
    desk.conn.execute(due)
    carry_over.continue_deferred(desk.conn, 10)
    assert desk.runs() == ["partial", "running"]


def test_a_paused_integration_defers_nothing_for_a_limit(desk) -> None:
    account = desk.account()
    desk.finish(desk.root(account), tasks=[Task("step")])
    desk.conn.execute(
        "INSERT INTO breaker (user_integration_id, limit_name, integration_domain, types,"
        " failed_tasks, first_failed_at, opened_at, probe_at)"
        " VALUES (%s, 's', 'shop', '{step}', '{}', now(), now() - interval '1 day', now())",
        (account,),
    )
    desk.conn.execute("UPDATE sync_run SET started_at = now() - interval '1 day'")
    assert len(breakers.overdue_limits(desk.conn)) == 1
    pause(desk)
    assert breakers.overdue_limits(desk.conn) == []


def test_a_person_sees_why_an_account_waits(desk, backend, healthy) -> None:
    account = desk.account()
    pause(desk)
    (blocker,) = blockers.blockers(backend, desk.conn, lookup_account(desk, account))
    assert blocker.reason == "an operator paused the integration shop"
    accounts = [lookup_account(desk, account)]
    (blocker,) = blockers.first_blockers(backend, desk.conn, accounts).values()
    assert "paused" in blocker.reason


def lookup_account(desk: Any, account: Any) -> Any:
    from core.accounts import store

    return store.load(desk.conn, lookup.account_id(desk.conn, str(account)))


def test_an_unknown_integration_and_a_past_time_are_refused(backend) -> None:
    with pytest.raises(NotFound):
        service.pause(backend, f"no-{uuid4()}")
    with pytest.raises(InvalidInput):
        service.pause(backend, "locked", datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(WrongState):
        service.resume(backend, "locked")


def test_the_api_pauses_and_resumes_for_operators_only(api) -> None:
    path = "/v1/integrations/locked"
    for act in ("pause", "resume"):
        assert api.user("u").post(f"{path}/{act}").status_code == 403
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    paused = api.admin.post(f"{path}/pause", json={"until": until})
    assert paused.status_code == 200
    assert datetime.fromisoformat(paused.json()["paused_until"]) == datetime.fromisoformat(until)
    assert api.user("u").get(path).json()["paused_at"]
    assert api.admin.post(f"{path}/pause").json()["paused_until"] is None
    assert api.admin.post(f"{path}/resume").json()["paused_at"] is None
    assert api.admin.post(f"{path}/resume").status_code == 409
    assert api.admin.post(f"{path}/pause", json={"until": "2020-01-01"}).status_code == 422


def test_the_dashboard_pauses_and_resumes_for_operators_only(dashboard, desk) -> None:
    operator, user = signed_in(dashboard), signed_in(dashboard, "u")
    user.post("/integrations/locked/pause", status=403)
    assert "/integrations/locked/pause" not in user.get("/integrations").text
    operator.post("/integrations/locked/pause")
    page = operator.get("/integrations").text
    assert "Paused" in page
    assert "/integrations/locked/resume" in page
    operator.post("/integrations/locked/resume")
    assert not pauses.lasting(desk.conn)


CONFIG: dict[str, Any] = {
    "config": "{}", "limits": "[]", "public_hosts_only": False, "instead_of": None,
    "reread": False,
}  # fmt: skip
STOPPED: dict[str, Any] = {"detail": "x", "credentials_version": 1, "task": 1}
ACTIONS: dict[str, Callable[[Any, UUID], Any]] = {
    "pause integration": lambda desk, _: pause(desk),
    "pause until now": lambda desk, _: pause(desk, datetime.now(UTC)),
    "resume integration": lambda desk, _: pauses.resume(desk.conn, "shop"),
    "hold": lambda desk, _: pauses.hold_accounts(desk.conn),
    "spread": lambda desk, _: pauses.end_pauses(desk.conn),
    "pause": lambda desk, id: desk.conn.execute(store.PAUSE, (id,)),
    "resume": lambda desk, id: desk.conn.execute(store.RESUME, (id,)),
    "resume stopped": lambda desk, id: desk.conn.execute(store.RESUME_STOPPED, (id,)),
    "stop": lambda desk, id: desk.conn.execute(
        store.STOP, STOPPED | {"id": id, "reason": "configuration"}
    ),
    "correct": lambda desk, id: desk.conn.execute(
        store.SET_CONFIG, CONFIG | {"id": id, "resync": False}
    ),
    "change": lambda desk, id: desk.conn.execute(
        store.SET_CONFIG, CONFIG | {"id": id, "resync": True}
    ),
    "due": lambda desk, id: desk.conn.execute(
        "UPDATE user_integration SET next_sync_at = now() WHERE next_sync_at > now() AND id = %s",
        (id,),
    ),
    "poll": lambda desk, _: scheduling.claim_due(desk.conn, 10),
    "sync": lambda desk, id: scheduling.request_run(desk.conn, id),
    "resync": lambda desk, id: scheduling.request_resync(desk.conn, id),
    "retry": lambda desk, id: open_run(desk.conn, id, lane="live", trigger="retry"),
    "end": lambda desk, _: (
        desk.conn.execute("UPDATE sync_task SET state = 'done' WHERE state <> 'done'"),
        completion.end_forgotten_runs(desk.conn),
    ),
}


@pytest.mark.parametrize("seed", range(20))
def test_no_account_stays_without_a_next_poll(desk, seed: int) -> None:
    """After any actions on accounts and on their integration, each account is polled once."""
    dice = random.Random(seed)
    accounts = [desk.account(name) for name in "abc"]
    names = [dice.choice(list(ACTIONS)) for _ in range(60)]
    for name in names:
        with suppress(WrongState):
            ACTIONS[name](desk, dice.choice(accounts))
    pauses.resume(desk.conn, "shop")
    for account in accounts:
        ACTIONS["resume"](desk, account)
    leader_works(desk)
    for account in accounts:
        ACTIONS["correct"](desk, account)
    for _ in range(2):
        ACTIONS["end"](desk, accounts[0])
        leader_works(desk)
    assert not desk.rows("SELECT name FROM user_integration WHERE next_sync_at IS NULL"), names
    for account in accounts:
        ACTIONS["due"](desk, account)
    assert len(scheduling.claim_due(desk.conn, 10).runs) == 3
    assert scheduling.claim_due(desk.conn, 10).runs == []


def test_an_account_that_stopped_during_a_pause_is_polled_after_its_correction(desk) -> None:
    account = desk.account()
    pause(desk)
    leader_works(desk)
    assert ACTIONS["stop"](desk, account).rowcount == 1
    pauses.resume(desk.conn, "shop")
    leader_works(desk)
    ACTIONS["correct"](desk, account)
    assert [claimed for _, claimed in scheduling.claim_due(desk.conn, 10).runs] == [account]
