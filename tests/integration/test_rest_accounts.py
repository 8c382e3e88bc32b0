"""Accounts over the API: connecting, changing and disconnecting them, and keeping secrets."""

from __future__ import annotations

import threading

import pytest
from pydantic import BaseModel, PositiveFloat
from support.old_clocks import OLD, YOUNG
from support.rest import SECRET

from core import AccountIdentity, BaseIntegration, Manifest


class Patience(BaseModel):
    seconds: PositiveFloat = 30


class Patient(BaseIntegration[Patience]):
    manifest = Manifest("patient", "Patient")

    def check(self) -> AccountIdentity:
        return AccountIdentity("me", "me")


@pytest.fixture
def integrations():
    return (Patient,)


NEW = {
    "integration_domain": "locked",
    "config": {"name": "me"},
    "credentials": {"password": SECRET},
}


def connect(client, **more):
    answer = client.post("/v1/user-integrations", json=NEW | more)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def test_an_account_is_connected_read_changed_and_disconnected(api) -> None:
    user = api.user("u")
    answer = user.post(
        "/v1/user-integrations", json=NEW | {"name": "mine", "poll_interval_minutes": 7}
    )
    assert answer.status_code == 201
    account = answer.json()
    assert answer.headers["location"] == f"/v1/user-integrations/{account['id']}"
    assert (account["user_id"], account["name"], account["poll_interval_minutes"]) == (
        "u",
        "mine",
        7,
    )
    place = f"/v1/user-integrations/{account['id']}"
    assert user.get(place).json()["waits"] == [{"reason": "no worker is running", "until": None}]
    assert user.get(place).json()["owed"] == {"tasks": 0, "since": None}
    assert user.get(place).json()["complete_as_of"] is None
    changed = user.patch(place, json={"name": "other", "poll_interval_minutes": 9}).json()
    assert (changed["name"], changed["poll_interval_minutes"]) == ("other", 9)
    assert (
        user.patch(place, json={"config": {"name": "me", "mood": "new"}}).json()["config"]["mood"]
        == "new"
    )
    # the request has to state what happens to the content
    assert user.delete(place).status_code == 422
    assert user.delete(f"{place}?content=keep").status_code == 204
    assert user.get(place).json()["sync_status"] == "disconnected"
    assert user.delete(f"{place}?content=delete").status_code == 204
    assert user.get(place).json()["sync_status"] == "erasing"
    assert user.delete(f"{place}?content=keep").json()["code"] == "account-erasing"
    assert user.delete(f"{place}?content=delete&now=true").status_code == 204
    assert user.get(place).status_code == 404


def test_connecting_again_returns_the_same_account(api) -> None:
    user = api.user("u")
    first = connect(user)
    again = user.post("/v1/user-integrations", json=NEW)
    assert (again.status_code, again.json()["id"]) == (200, first["id"])


def test_only_an_operator_connects_accounts_for_other_users(api) -> None:
    assert api.admin.post("/v1/user-integrations", json=NEW).status_code == 422
    assert connect(api.admin, user_id="v")["user_id"] == "v"
    assert (
        api.user("u").post("/v1/user-integrations", json=NEW | {"user_id": "v"}).status_code == 403
    )


def test_listings_are_filtered_and_paged(api) -> None:
    user, admin = api.user("u"), api.admin
    ids = [connect(user, config={"name": f"n{number}"})["id"] for number in range(5)]
    connect(api.user("v"))
    found, after = [], None
    while True:
        page = user.get(
            "/v1/user-integrations", params={"limit": 2} | ({"after": after} if after else {})
        ).json()
        found += [row["id"] for row in page["items"]]
        after = page["cursor"]
        if after is None:
            break
    assert found == ids
    assert len(admin.get("/v1/user-integrations").json()["items"]) == 6
    assert len(admin.get("/v1/user-integrations", params={"user_id": "v"}).json()["items"]) == 1
    user.post(f"/v1/user-integrations/{ids[0]}/pause")
    paused = admin.get("/v1/user-integrations", params={"sync_status": "paused"}).json()["items"]
    assert [row["id"] for row in paused] == ids[:1]
    due = {"due_before": "2000-01-01T00:00:00Z"}
    assert admin.get("/v1/user-integrations", params=due).json()["items"] == []
    due = {"due_before": "2100-01-01T00:00:00Z", "integration_domain": "locked"}
    assert len(admin.get("/v1/user-integrations", params=due).json()["items"]) == 6


def test_actions_that_do_not_fit_the_state_are_conflicts(api) -> None:
    user = api.user("u")
    place = f"/v1/user-integrations/{connect(user)['id']}"
    assert user.post(f"{place}/pause").json()["sync_status"] == "paused"
    refused = user.post(f"{place}/sync")
    assert (refused.status_code, refused.json()["type"], refused.json()["code"]) == (
        409,
        "urn:integration-polling:problem:account-paused",
        "account-paused",
    )
    assert refused.json()["next_step"] == f"Resume it: POST {place}/resume"
    assert user.post(f"{place}/resume").json()["sync_status"] == "active"
    assert user.post(f"{place}/check").json() == {"id": "me", "name": "me"}


def test_runs_and_their_tasks_are_listed_and_controlled(api, desk) -> None:
    user = api.user("u")
    place = f"/v1/user-integrations/{connect(user)['id']}"
    asked = user.post(f"{place}/sync")
    assert (asked.status_code, asked.json()["new"]) == (201, True)
    again = user.post(f"{place}/sync")
    assert (again.status_code, again.json()) == (
        200,
        {"run_id": asked.json()["run_id"], "new": False},
    )
    run = user.get(asked.headers["location"]).json()
    assert (run["state"], run["tasks_known"], run["tasks_ready"]) == ("running", 1, 1)
    (task,) = user.get(f"/v1/runs/{run['id']}/tasks", params={"state": "ready"}).json()["items"]
    assert user.get(f"/v1/tasks/{task['id']}").json() == task
    assert user.post(f"/v1/tasks/{task['id']}/retry").status_code == 409
    desk.conn.execute("UPDATE sync_task SET state = 'parked', reason = 'broken'")
    assert user.post(f"/v1/tasks/{task['id']}/retry").json()["tasks"] == [task["id"] + 1]
    desk.conn.execute("UPDATE sync_task SET state = 'parked' WHERE id = %s", (task["id"] + 1,))
    assert user.post(f"/v1/tasks/{task['id'] + 1}/discard").json()["state"] == "done"
    assert user.post(f"/v1/runs/{run['id']}/cancel").json()["state"] == "cancelled"
    assert user.post(f"/v1/runs/{run['id']}/cancel").status_code == 409
    assert [row["state"] for row in user.get(f"{place}/runs").json()["items"]] == ["cancelled"]
    assert user.post(f"{place}/resync").status_code == 201
    desk.conn.execute(
        "INSERT INTO sync_state VALUES (%s, 'p', '{\"a\": 1}', 1, 1)", (run["user_integration_id"],)
    )
    (state,) = user.get(f"{place}/state").json()["items"]
    assert (state["partition"], state["value"]) == ("p", {"a": 1})


def test_every_partition_of_a_state_can_be_read(api, desk) -> None:
    user = api.user("u")
    account = connect(user)["id"]
    insert = """
    INSERT INTO sync_state SELECT %s, 'p' || n, CASE WHEN n <> 7 THEN to_jsonb(n) END, 1, 1
    FROM generate_series(1, 9) n
    """
    desk.conn.execute(insert, (account,))
    found, after = [], {}
    while after is not None:
        page = user.get(
            f"/v1/user-integrations/{account}/state", params={"limit": 3, **after}
        ).json()
        found += [row["value"] for row in page["items"]]
        after = {"after": page["cursor"]} if page["cursor"] else None
    assert found == [1, 2, 3, 4, 5, 6, 8, 9]


@pytest.mark.parametrize("password", ["bad-" + SECRET, "wrong-" + SECRET, "down-" + SECRET])
def test_no_error_repeats_credentials(api, password, caplog) -> None:
    user = api.user("u")
    answer = user.post("/v1/user-integrations", json=NEW | {"credentials": {"password": password}})
    assert answer.status_code in (422, 502)
    assert answer.headers["content-type"] == "application/problem+json"
    assert SECRET not in answer.text
    place = f"/v1/user-integrations/{connect(user)['id']}"
    assert SECRET not in user.patch(place, json={"credentials": {"password": password}}).text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        {"credentials": SECRET},
        {"credentials": [SECRET]},
        {"credentials": {"password": {"x": SECRET}}},
        {"config": SECRET},
        {"name": [SECRET]},
        {"poll_interval_minutes": SECRET},
        {"user_id": {"x": SECRET}},
    ],
)
def test_no_validation_message_repeats_what_was_sent(api, body) -> None:
    answer = api.user("u").post("/v1/user-integrations", json=NEW | body)
    assert answer.status_code == 422
    assert SECRET not in answer.text


def test_an_invalid_json_body_is_not_repeated(api) -> None:
    headers = {"Content-Type": "application/json"}
    answer = api.user("u").post(
        "/v1/user-integrations", content=f'{{"x": {SECRET}', headers=headers
    )
    assert (answer.status_code, SECRET in answer.text) == (422, False)


def test_a_number_that_json_cannot_represent_is_refused(api, integrations) -> None:
    """A pydantic model may accept infinity, but PostgreSQL's JSON does not."""
    body = '{"integration_domain": "patient", "config": {"seconds": 1e999}}'
    answer = api.user("u").post(
        "/v1/user-integrations", content=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, "infinite" in answer.text) == (422, True)


def test_no_answer_contains_credentials(api, desk) -> None:
    user = api.user("u")
    account = connect(user)
    place = f"/v1/user-integrations/{account['id']}"
    run = user.post(f"{place}/sync").json()["run_id"]
    texts = [
        user.get(path).text
        for path in (
            place,
            "/v1/user-integrations",
            f"{place}/runs",
            f"{place}/state",
            f"/v1/runs/{run}",
            "/v1/changes",
        )
    ]
    assert not [
        text for text in texts if SECRET in text or ("credentials" in text and "ciphertext" in text)
    ]
    sealed = desk.value("SELECT credentials FROM user_integration")
    assert SECRET not in sealed
    assert not [text for text in texts if sealed in text]


def test_new_credentials_reactivate_an_account_in_error(api, desk) -> None:
    user = api.user("u")
    place = f"/v1/user-integrations/{connect(user)['id']}"
    desk.conn.execute(
        "UPDATE user_integration SET sync_status = 'error', status_reason = 'credentials'"
    )
    assert (
        user.patch(place, json={"credentials": {"password": "newer"}}).json()["sync_status"]
        == "active"
    )
    both = {"config": {"name": "me", "mood": "x"}, "credentials": {"password": "newest"}}
    assert user.patch(place, json=both).json()["config"]["mood"] == "x"
    assert desk.value("SELECT credentials_version FROM user_integration") == 3
    other = {"config": {"name": "somebody else"}, "credentials": {"password": "newest"}}
    assert user.patch(place, json=other).status_code == 422


def test_a_refused_request_changes_nothing(api, desk) -> None:
    user = api.user("u")
    place = f"/v1/user-integrations/{connect(user)['id']}"
    before = desk.rows("SELECT name, credentials_version, version FROM user_integration")
    for more in (
        {"name": "  "},
        {"name": ""},
        {"poll_interval_minutes": 0},
        {"name": "x", "config": {"name": "other"}},
    ):
        answer = user.patch(place, json={"credentials": {"password": "newer"}} | more)
        assert answer.status_code == 422, answer.text
    assert desk.rows("SELECT name, credentials_version, version FROM user_integration") == before


# Idempotency-Key
# --------------------------------------------------------------------------------------------------


def test_a_repeated_idempotency_key_acts_once_and_returns_the_same_answer(api, desk) -> None:
    user = api.user("u")
    key = {"Idempotency-Key": "k1"}
    first = user.post("/v1/user-integrations", json=NEW, headers=key)
    again = user.post("/v1/user-integrations", json=NEW, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert (first.json(), first.headers["location"]) == (again.json(), again.headers["location"])
    assert again.headers["idempotency-replayed"] == "true"
    assert desk.value("SELECT version FROM user_integration") == 1
    other = user.post("/v1/user-integrations", json=NEW | {"name": "x"}, headers=key)
    assert (other.status_code, other.json()["type"].rpartition(":")[2]) == (
        422,
        "idempotency-key-misused",
    )
    sync = user.post(f"/v1/user-integrations/{first.json()['id']}/sync", headers=key)
    assert sync.status_code == 422


def test_an_idempotency_key_belongs_to_its_token(api) -> None:
    key = {"Idempotency-Key": "k1"}
    first = api.user("u").post("/v1/user-integrations", json=NEW, headers=key).json()
    second = api.user("v").post("/v1/user-integrations", json=NEW, headers=key).json()
    assert first["id"] != second["id"]


def test_a_failed_request_may_be_sent_again_with_its_key(api) -> None:
    user, key = api.user("u"), {"Idempotency-Key": "k1"}
    wrong = NEW | {"credentials": {"password": "wrong"}}
    assert user.post("/v1/user-integrations", json=wrong, headers=key).status_code == 422
    assert user.post("/v1/user-integrations", json=NEW, headers=key).status_code == 201


@pytest.mark.parametrize("answered", [True, False])
def test_a_key_is_used_again_only_if_all_clocks_call_it_old(api, desk, answered) -> None:
    """After a step of the database's clock, a repeated request would act twice."""
    user, key = api.user("u"), {"Idempotency-Key": "k1"}

    def send() -> tuple[int, str | None]:
        sent = user.post("/v1/user-integrations", json=NEW, headers=key)
        return sent.status_code, sent.headers.get("idempotency-replayed")

    again = (201, "true") if answered else (409, None)
    assert send() == (201, None)
    if not answered:
        desk.conn.execute("UPDATE idempotency_key SET status = NULL, answer = NULL")
    assert send() == again
    desk.conn.execute("UPDATE idempotency_key SET created_at = created_at - interval '2 days'")
    assert send() == again, "no leader has watched the clock"
    desk.conn.execute(YOUNG)
    assert send() == again
    desk.conn.execute("DELETE FROM monotonic_sample")
    desk.conn.execute(OLD)
    assert send() == (200, None), "the same account is connected again"
    assert send() == (200, "true")
    assert desk.value("SELECT version FROM user_integration") == 2


def test_an_abandoned_key_is_used_again_before_an_answered_one(api, desk) -> None:
    user, key = api.user("u"), {"Idempotency-Key": "k1"}
    user.post("/v1/user-integrations", json=NEW, headers=key)
    desk.conn.execute(OLD)
    desk.conn.execute("UPDATE idempotency_key SET created_at = created_at - interval '1 hour'")
    sent = user.post("/v1/user-integrations", json=NEW, headers=key)
    assert sent.headers["idempotency-replayed"] == "true"
    desk.conn.execute("UPDATE idempotency_key SET status = NULL, answer = NULL")
    sent = user.post("/v1/user-integrations", json=NEW, headers=key)
    assert (sent.status_code, "idempotency-replayed" in sent.headers) == (200, False)


def test_one_of_many_concurrent_requests_with_a_key_acts(api, desk) -> None:
    clients = [api.client(api.token("u"))] * 8
    answers, barrier = [], threading.Barrier(8)

    def send(client) -> None:
        barrier.wait()
        answers.append(
            client.post(
                "/v1/user-integrations", json=NEW, headers={"Idempotency-Key": "k"}
            ).status_code
        )

    threads = [threading.Thread(target=send, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {201, 409}
    assert 201 in answers
    assert desk.value("SELECT version FROM user_integration") == 1


def test_the_stored_request_of_a_key_contains_no_password(api, desk) -> None:
    api.user("u").post("/v1/user-integrations", json=NEW, headers={"Idempotency-Key": "k"})
    digest, answer = desk.rows("SELECT request_digest, answer::text FROM idempotency_key")[0]
    assert SECRET not in answer
    assert len(digest) == 32
