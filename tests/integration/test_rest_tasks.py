"""Actions over the API on all tasks that match a filter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from core.cli import tasks as cli_tasks
from core.service.runs import actions as run_actions
from core.service.runs import parked
from core.service.runs.parked import ParkedFilter

STATES = "SELECT id, CASE WHEN retried_as IS NULL THEN state ELSE 'retried' END FROM sync_task"


@pytest.fixture
def stopped(desk: Any) -> Any:
    """Return `stopped(account, reason, state)`, which adds a stopped task of an ended run."""

    def add(account: UUID, reason: str, state: str = "parked", *, hours: int = 0) -> int:
        (task,) = desk.add(desk.run(account), f"{reason} {state} {hours}")
        desk.conn.execute(
            "UPDATE sync_task SET state = %s, reason = %s,"
            " finished_at = now() - %s * interval '1 h' WHERE id = %s",
            (state, reason, hours, task),
        )
        return task

    return add


def states(desk: Any, *tasks: int) -> list[str]:
    found = dict(desk.rows(STATES))
    return [found[task] for task in tasks]


def test_a_filter_selects_by_account_reason_age_and_state(api, desk, stopped) -> None:
    one, two = desk.account("one"), desk.account("two")
    tasks = [
        stopped(one, "HTTP 503: busy"),
        stopped(one, "HTTP 503: busy", "deferred"),
        stopped(one, "HTTP 404"),
        stopped(one, "http 503: old", hours=3),
        stopped(two, "HTTP 503: busy"),
    ]
    wanted = {"user_integration_id": str(one), "reason": "http 503"}
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    answer = api.admin.post("/v1/tasks/retry", json={**wanted, "since": since, "state": "parked"})
    assert answer.json() == {"done": 1, "refused": 0, "more": False, "cursor": None}
    assert states(desk, *tasks) == ["retried", "deferred", "parked", "parked", "parked"]
    assert api.admin.post("/v1/tasks/discard", json=wanted).json()["done"] == 2
    assert states(desk, *tasks) == ["retried", "done", "parked", "done", "parked"]


@pytest.fixture
def failing_again(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each request stop after a portion of 2, and each retried task fail immediately."""
    retry = run_actions.retry

    def retry_and_park(engine: Any, ids: Any) -> list[int]:
        copies: list[int] = retry(engine, ids)
        desk.conn.execute("UPDATE sync_task SET state = 'parked' WHERE id = ANY(%s)", (copies,))
        return copies

    monkeypatch.setattr(run_actions, "retry", retry_and_park)
    monkeypatch.setattr(parked, "BATCH_TASKS", 2)
    monkeypatch.setattr(parked, "MAX_BULK_SECONDS", 0.0)


@pytest.mark.usefixtures("failing_again")
def test_requests_that_continue_retry_no_task_twice(api, desk, stopped) -> None:
    account = desk.account()
    for number in range(7):
        stopped(account, f"failure {number}")
    done, after = 0, {}
    while True:
        answer = api.admin.post("/v1/tasks/retry", json={"state": "parked"}, params=after).json()
        done += answer["done"]
        assert answer["more"] == (answer["cursor"] is not None)
        if not answer["more"]:
            break
        assert done <= 7, "a task was retried again"
        after = {"after": answer["cursor"]}
    assert (done, answer["refused"]) == (7, 0)
    refused = api.admin.post("/v1/tasks/retry", json={"state": "parked"}, params={"after": "x"})
    assert refused.status_code == 422


@pytest.mark.usefixtures("failing_again")
@pytest.mark.timeout(60)
def test_a_command_retries_each_task_once(backend, desk, stopped, capsys) -> None:
    account = desk.account()
    for number in range(7):
        stopped(account, f"failure {number}")
    cli_tasks._report(run_actions.retry, backend, ParkedFilter(), "Retrying {} tasks.", json=False)
    assert "Retrying 7 tasks." in capsys.readouterr().out


@pytest.mark.parametrize("reason", ["%", "_", "'; DROP TABLE sync_task; --", "\\", "é" * 400])
def test_a_reason_is_a_plain_text(api, desk, stopped, reason: str) -> None:
    task, other = stopped(desk.account(), f"so {reason}."), stopped(desk.account("b"), "plain")
    assert api.admin.post("/v1/tasks/discard", json={"reason": reason}).json()["done"] == 1
    assert states(desk, task, other) == ["done", "parked"]


def test_a_user_retries_only_tasks_of_the_users_own_accounts(api, desk, stopped) -> None:
    mine, theirs = desk.account("m", user_id="me"), desk.account("t", user_id="them")
    tasks = stopped(mine, "x"), stopped(theirs, "x")
    user = api.user("me")
    assert user.post("/v1/tasks/retry", json={"reason": "x"}).json()["done"] == 1
    assert states(desk, *tasks) == ["retried", "parked"]
    foreign = {"user_integration_id": str(theirs)}
    assert user.post("/v1/tasks/retry", json=foreign).status_code == 404
    assert user.post("/v1/tasks/retry", json={}).status_code == 422
    assert states(desk, tasks[1]) == ["parked"]


PAYLOADS = "SELECT payload, retry_of FROM sync_task WHERE id = %s"


@pytest.fixture
def refused(desk: Any, stopped: Any) -> int:
    """Park a task of an integration that knows its parameters."""
    return stopped(desk.account(user_id="ann", domain="locked"), "not found")


def test_an_operator_retries_a_task_with_another_payload(api, desk, refused) -> None:
    place = f"/v1/tasks/{refused}/retry"
    answer = api.admin.post(place, json={"payload": {"number": 2}})
    assert answer.status_code == 200, answer.text
    (copy,) = answer.json()["tasks"]
    assert desk.rows(PAYLOADS, copy) == [({"number": 2}, refused)]
    assert desk.rows(PAYLOADS, refused) == [({}, None)]
    assert states(desk, refused) == ["retried"]
    (dispatch,) = [each for each in desk.claim(domain="locked") if each.task_id == copy]
    assert dispatch.payload == {"number": 2}


@pytest.mark.parametrize(
    "payload", [{"number": "x"}, {"number": "\0"}, {"number": "a" * 70_000}, {"number": [1]}]
)
def test_a_payload_that_does_not_fit_changes_nothing(api, desk, refused, payload) -> None:
    answer = api.admin.post(f"/v1/tasks/{refused}/retry", json={"payload": payload})
    assert (answer.status_code, answer.json()["code"]) == (422, "payload-invalid")
    assert states(desk, refused) == ["parked"]


def test_a_user_cannot_edit_a_payload(api, desk, refused) -> None:
    """A payload may name an item or an address that the user may not read."""
    place, user = f"/v1/tasks/{refused}/retry", api.user("ann")
    assert user.post(place, json={"payload": {"number": 2}}).status_code == 403
    assert states(desk, refused) == ["parked"]
    assert user.post(place, json={}).status_code == 200
    assert states(desk, refused) == ["retried"]


def test_a_step_that_the_open_run_has_is_not_edited(api, desk, refused) -> None:
    """The original would count as continued by a task without the edit."""
    account = desk.value("SELECT user_integration_id FROM sync_task WHERE id = %s", refused)
    desk.conn.execute("UPDATE sync_run SET state = 'partial', finished_at = now()")
    desk.conn.execute("UPDATE sync_task SET state = 'done' WHERE state = 'ready'")
    desk.add(desk.run(account), "not found parked 0")
    answer = api.admin.post(f"/v1/tasks/{refused}/retry", json={"payload": {"number": 2}})
    assert (answer.status_code, answer.json()["code"]) == (409, "task-step-open")
    assert states(desk, refused) == ["parked"]
