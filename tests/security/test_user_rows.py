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
