"""The rows that one user's token can create are bounded, apart from the rate of requests.

Sessions, tokens and sign-ins at providers have such bounds in `test_sessions.py`, `test_scopes.py`
and `test_oauth_sign_in.py`.
"""

from __future__ import annotations

import pytest
from support.rest import SECRET

from core.rest import idempotency
from core.service import provider_slots
from core.service.accounts import actions
from core.service.accounts.validation import MAX_VALUES_BYTES
from core.service.runs import parked

ACCOUNTS = "/v1/user-integrations"


def connected(client, name: str, **headers: str):
    return client.post(
        ACCOUNTS,
        json={
            "integration_domain": "locked",
            "config": {"name": name},
            "credentials": {"password": SECRET},
        },
        headers=headers,
    )


def test_the_accounts_of_a_user_are_bounded(dashboard, conn, monkeypatch) -> None:
    monkeypatch.setattr(actions, "MAX_ACCOUNTS_PER_USER", 3)
    mallory = dashboard.user("mallory")
    answers = [connected(mallory, f"account {n}") for n in range(5)]
    assert [answer.status_code for answer in answers] == [201] * 3 + [429] * 2
    assert answers[-1].json()["code"] == "accounts-exhausted"
    browser = dashboard.sign_in("mallory")
    fields = {"config.name": "from a form", "credentials.password": SECRET}
    assert browser.submit("/integrations/locked/connect", "/integrations/locked/connect",
        fields).status_code == 429  # fmt: skip
    conn.execute("UPDATE user_integration SET sync_status = 'disconnected', credentials = NULL")
    assert connected(mallory, "another").status_code == 429
    assert connected(mallory, "account 1").status_code == 200, "an account that exists is no more"
    assert connected(dashboard.user("ann"), "hers").status_code == 201
    assert conn.execute("SELECT count(*) FROM user_integration").fetchone() == (4,)
    operator = dashboard.admin
    body = {
        "integration_domain": "locked", "config": {"name": "by operator"}, "user_id": "mallory",
        "credentials": {"password": SECRET},
    }  # fmt: skip
    assert operator.post(ACCOUNTS, json=body).status_code == 201


def test_the_keys_of_requests_of_a_user_are_bounded(api, conn, monkeypatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEYS_PER_USER", 3)
    mallory = api.user("mallory")
    account = connected(mallory, "me").json()["id"]
    path = f"{ACCOUNTS}/{account}/sync"

    def sync(client, key: str):
        return client.post(path, headers={"Idempotency-Key": key})

    answers = [sync(mallory, f"k{n}") for n in range(4)]
    answers.append(sync(api.user("mallory"), "k5"))  # another token does not help
    assert [answer.status_code for answer in answers] == [201, 200, 200, 429, 429]
    assert answers[-1].json()["code"] == "idempotency-keys-exhausted"
    assert sync(mallory, "k0").headers["idempotency-replayed"] == "true"
    assert mallory.post(path).status_code == 200
    assert conn.execute("SELECT count(*) FROM idempotency_key").fetchone() == (3,)
    operator = api.admin
    assert {sync(operator, f"k{n}").status_code for n in range(5)} == {200}
    assert connected(api.user("ann"), "me", **{"Idempotency-Key": "k"}).status_code == 201


LARGE = "x" * MAX_VALUES_BYTES


@pytest.mark.parametrize("part", ["config", "credentials"])
def test_a_config_and_credentials_are_small(dashboard, conn, part) -> None:
    """A thousand accounts of one user, and thousands of recorded responses, would fill the disk."""
    mallory, browser = dashboard.user("mallory"), dashboard.sign_in("mallory")
    account = connected(mallory, "me").json()["id"]
    values = {"config": {"name": "me"}, "credentials": {"password": SECRET}}
    values[part] |= {"config": {"mood": LARGE}, "credentials": {"password": LARGE}}[part]
    form = {
        f"{part}.{field}": value for part, held in values.items() for field, value in held.items()
    }
    change = values if part == "config" else {"credentials": values["credentials"]}
    answers = [
        mallory.post(ACCOUNTS, json={"integration_domain": "locked"} | values),
        mallory.patch(f"{ACCOUNTS}/{account}", json=change),
        dashboard.admin.patch(f"{ACCOUNTS}/{account}", json=change),
    ]
    assert [answer.json()["code"] for answer in answers] == ["values-too-large"] * 3
    assert {answer.json()["detail"] for answer in answers} == {
        f"{part}: larger than 64 KiB of JSON in ASCII"
    }
    page = browser.submit("/integrations/locked/connect", "/integrations/locked/connect", form)
    assert page.status_code == 422
    assert "larger than 64 KiB" in page.text
    stored = "SELECT count(*), max(length(config::text) + length(credentials)) < 1000"
    assert conn.execute(f"{stored} FROM user_integration").fetchone() == (1, True)


def test_letters_outside_ascii_count_as_they_are_stored(api) -> None:
    """A config of 20,000 such letters is stored as JSON with six bytes for each."""
    mallory = api.user("mallory")
    new = {"integration_domain": "locked", "credentials": {"password": SECRET}}
    for letters, status in ((10_000, 201), (20_000, 422)):
        config = {"name": str(letters), "mood": "я" * letters}
        assert mallory.post(ACCOUNTS, json=new | {"config": config}).status_code == status


def test_a_long_identity_is_one_account(api, conn) -> None:
    """Users choose it with some integrations. The index on it has no room for a long one."""
    user = "\U0001f408" * 500
    mallory, key = api.user(user), {"Idempotency-Key": "k"}
    random = "".join(map(chr, range(0x4E00, 0x4E00 + 9_000)))
    names = [random, random[:-1], random[1:], random]
    answers = [connected(mallory, name, **(key if name is random else {})) for name in names]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 201]
    assert answers[3].headers["idempotency-replayed"] == "true"
    again = connected(mallory, random)
    assert (again.status_code, again.json()["id"]) == (200, answers[0].json()["id"])
    account = f"{ACCOUNTS}/{again.json()['id']}"
    assert mallory.patch(account, json={"credentials": {"password": SECRET}}).status_code == 200
    assert conn.execute("SELECT count(*), max(length(name)) FROM user_integration").fetchone() == (
        3, 500,
    )  # fmt: skip


@pytest.mark.parametrize("action", ["sync", "resync", "reread"])
def test_the_runs_that_a_user_requests_are_bounded(dashboard, conn, monkeypatch, action) -> None:
    monkeypatch.setattr(provider_slots, "MAX_RUNS_PER_HOUR", 3)
    mallory = dashboard.user("mallory")
    account = connected(mallory, "me").json()["id"]
    path = f"{ACCOUNTS}/{account}/{action}"
    for _ in range(3):
        answer = mallory.post(path)
        # A reread needs an integration that can read again.
        assert answer.status_code < (500 if action == "reread" else 300), answer.text
    answers = [client.post(path) for client in (mallory, dashboard.user("mallory"))]
    assert {(one.status_code, one.json()["code"]) for one in answers} == {(429, "runs-exhausted")}
    browser = dashboard.sign_in("mallory")
    assert browser.post(f"/accounts/{account}/{action}").status_code == 429
    assert dashboard.admin.post(path).status_code != 429
    theirs = connected(dashboard.user("ann"), "me").json()["id"]
    assert dashboard.user("ann").post(f"{ACCOUNTS}/{theirs}/sync").status_code == 201


STOPPED = """
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key, state, finished_at)
SELECT gen_random_uuid(), %s, 'locked', 'live', 'step', '{}', decode(md5(n::text), 'hex'), 'parked',
    now()
FROM generate_series(1, %s) n RETURNING id
"""


def stopped(conn, account: str, number: int = 1) -> list[int]:
    return [task for (task,) in conn.execute(STOPPED, (account, number))]


@pytest.mark.parametrize("way", ["one", "form", "selected", "bulk", "bulk form", "resume"])
def test_retries_of_a_user_count_as_requests_for_runs(dashboard, conn, monkeypatch, way) -> None:
    monkeypatch.setattr(provider_slots, "MAX_RUNS_PER_HOUR", 3)
    mallory, browser = dashboard.user("mallory"), dashboard.sign_in("mallory")
    account = connected(mallory, "me").json()["id"]

    def request(client, browser) -> int:
        (task,) = stopped(conn, account)
        match way:
            case "one":
                return client.post(f"/v1/tasks/{task}/retry").status_code
            case "form":
                return browser.post(f"/tasks/{task}/retry").status_code
            case "selected":
                return browser.post("/parked/retry", {"task": task}).status_code
            case "bulk":
                return client.post("/v1/tasks/retry", json={"state": "parked"}).status_code
            case "bulk form":
                return browser.post("/parked/retry-all").status_code
            case _:
                assert client.post(f"{ACCOUNTS}/{account}/pause").status_code == 200
                return client.post(f"{ACCOUNTS}/{account}/resume").status_code

    answers = [request(mallory, browser) for _ in range(5)]
    assert all(status < 400 for status in answers[:3])
    assert answers[3:] == [429, 429]
    assert request(dashboard.admin, dashboard.sign_in()) < 400


def test_one_bulk_request_processes_a_bounded_number_of_tasks(api, conn, monkeypatch) -> None:
    monkeypatch.setattr(parked, "MAX_BULK_TASKS", 20)
    monkeypatch.setattr(parked, "BATCH_TASKS", 10)
    mallory = api.user("mallory")
    account = connected(mallory, "me").json()["id"]
    stopped(conn, account, 45)
    for action in ("retry", "discard"):
        done, after = [], ""
        while True:
            answer = mallory.post(f"/v1/tasks/{action}{after}", json={"state": "parked"}).json()
            done.append(answer["done"])
            if not answer["more"]:
                break
            after = f"?after={answer['cursor']}"
        assert done == [20, 20, 5]
        conn.execute("UPDATE sync_task SET state = 'parked', retried_as = NULL"
            " WHERE run_id NOT IN (SELECT id FROM sync_run)")  # fmt: skip


def test_a_bulk_request_that_uses_up_the_hour_continues_later(api, conn, monkeypatch) -> None:
    mallory = api.user("mallory")
    accounts = [connected(mallory, f"account {n}").json()["id"] for n in range(4)]
    tasks = {task for account in accounts for task in stopped(conn, account, 3)}
    monkeypatch.setattr(provider_slots, "MAX_RUNS_PER_HOUR", 2)
    first = mallory.post("/v1/tasks/retry", json={"state": "parked"}).json()
    assert (first["done"], first["more"]) == (6, True)
    path = f"/v1/tasks/retry?after={first['cursor']}"
    assert mallory.post(path, json={"state": "parked"}).status_code == 429
    monkeypatch.setattr(provider_slots, "MAX_RUNS_PER_HOUR", 600)
    assert mallory.post(path, json={"state": "parked"}).json()["done"] == 6
    retried = conn.execute("SELECT id FROM sync_task WHERE retried_as IS NOT NULL")
    assert {id for (id,) in retried} == tasks


def test_selected_tasks_are_retried_in_portions(dashboard, conn, monkeypatch) -> None:
    monkeypatch.setattr(parked, "BATCH_TASKS", 10)
    sizes, retry = [], parked.run_actions.retry

    def retried(engine, ids):
        sizes.append(len(ids))
        return retry(engine, ids)

    monkeypatch.setattr(parked.run_actions, "retry", retried)
    account = connected(dashboard.user("mallory"), "me").json()["id"]
    browser = dashboard.sign_in("mallory")
    assert browser.post("/parked/retry", {"task": stopped(conn, account, 25)}).status_code == 303
    assert sizes == [10, 10, 5]


def test_accepting_a_held_deletion_counts_as_a_request_for_a_run(
    dashboard, conn, monkeypatch
) -> None:
    monkeypatch.setattr(provider_slots, "MAX_RUNS_PER_HOUR", 2)
    mallory, browser = dashboard.user("mallory"), dashboard.sign_in("mallory")
    account = connected(mallory, "me").json()["id"]
    ((held,),) = conn.execute(
        "INSERT INTO held_deletion (user_integration_id, run_id, vanished, total)"
        " VALUES (%s, gen_random_uuid(), 1, 1) RETURNING id", (account,)
    )  # fmt: skip
    paths = [f"/v1/held-deletions/{held}/accept", f"/deletions/{held}/accept"]
    assert mallory.post(paths[0]).status_code == 200
    assert browser.post(paths[1]).status_code == 303
    assert [mallory.post(paths[0]).status_code, browser.post(paths[1]).status_code] == [429, 429]
