"""Subscriptions over REST: who may add, see and change them."""

from __future__ import annotations

import re
from dataclasses import replace

from core.accounts.vault import Vault, new_key
from core.scopes import ALL
from core.service.accounts import key_rotation
from core.service.subscriptions import MAX_PER_USER

NEW = {"address": "https://example.org/hooks"}


def test_subscriptions_over_rest(api, desk, vault) -> None:
    """A user sees and changes the own subscriptions only, and the secret is shown once."""
    account = desk.account(user_id="ann")
    other = desk.account("other", user_id="bob")
    ann, bob, admin = api.user("ann"), api.user("bob"), api.admin
    body = {"address": "https://example.org/hooks?key=hunter2", "only_kind": "message"}
    key = {"Idempotency-Key": "one"}
    added = ann.post("/v1/subscriptions", json=body, headers=key)
    assert added.status_code == 201
    assert ann.post("/v1/subscriptions", json=body, headers=key).json() == added.json()
    id, secret = added.json()["id"], added.json()["secret"]
    assert secret.startswith("whsec_")
    path = f"/v1/subscriptions/{id}"
    (listed,) = ann.get("/v1/subscriptions").json()["items"]
    shown = ann.get(path).json()
    assert shown.pop("deliveries") == []
    assert shown == listed
    assert (shown["address"], shown["user_id"], shown["state"]) == (
        "https://example.org/hooks", "ann", "active"
    )  # fmt: skip
    stored = str(desk.rows("SELECT * FROM subscription, idempotency_key, audit"))
    assert "hunter2" not in str(shown) + stored
    assert secret not in stored
    assert [one["id"] for one in admin.get("/v1/subscriptions").json()["items"]] == [id]
    assert bob.get("/v1/subscriptions").json()["items"] == []
    for method, end in [
        ("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/test"),
        ("POST", "/replay"),
    ]:  # fmt: skip
        assert bob.request(method, path + end).status_code == 404, end
    refused = [
        ({"user_id": "bob"}, 403), ({"user_integration_id": str(other)}, 404),
        ({"address": "http://example.org/"}, 422), ({"address": "https://127.0.0.1/"}, 422),
        ({"channel": "email", "kind": "content"}, 422), ({"unknown": 1}, 422),
    ]  # fmt: skip
    for wrong, status in refused:
        assert ann.post("/v1/subscriptions", json=body | wrong).status_code == status, wrong
    narrow = ann.post("/v1/subscriptions", json=body | {"user_integration_id": str(account)})
    assert narrow.status_code == 201
    assert ann.post(f"{path}/pause").json()["state"] == "paused"
    assert ann.post(f"{path}/test").status_code == 409
    assert ann.post(f"{path}/resume").json()["state"] == "active"
    assert ann.post(f"{path}/test").status_code == 202
    (waiting,) = ann.get(path).json()["deliveries"]
    assert (waiting["type"], waiting["state"]) == ("test", "waiting")
    assert ann.post(f"{path}/replay").json() == {"messages": 0}
    assert ann.delete(path).status_code == 204
    assert ann.get(path).status_code == 404
    acts = desk.rows("SELECT act, user_id FROM audit WHERE act LIKE 'subscr%%' ORDER BY id")
    assert acts == [("subscription.add", "ann")] * 2 + [("subscription.remove", "ann")]


def test_a_subscription_to_content_needs_the_scope_of_content(api) -> None:
    operator = api.client(api.token(scopes=["fleet:operate"]))
    body = {"address": "https://example.org/"}
    assert operator.post("/v1/subscriptions", json=body).json()["code"] == "scope-missing"
    body["kind"] = "operations"
    assert operator.post("/v1/subscriptions", json=body).status_code == 201


def test_a_user_has_a_bounded_number_of_subscriptions(api, desk) -> None:
    ann = api.user("ann")
    for _ in range(MAX_PER_USER):
        assert ann.post("/v1/subscriptions", json=NEW).status_code == 201
    assert ann.post("/v1/subscriptions", json=NEW).json()["code"] == "subscriptions-exhausted"
    assert api.user("bob").post("/v1/subscriptions", json=NEW).status_code == 201


def test_an_erased_user_has_no_subscriptions(api, desk) -> None:
    api.user("ann").post("/v1/subscriptions", json=NEW)
    api.user("bob").post("/v1/subscriptions", json=NEW)
    assert api.admin.delete("/v1/users/ann").status_code < 300
    assert desk.rows("SELECT user_id FROM subscription") == [("bob",)]


def test_rotating_keys_seals_subscriptions_again(api, desk, settings, backend) -> None:
    api.admin.post("/v1/subscriptions", json=NEW)
    before = desk.value("SELECT sealed FROM subscription")
    newest, oldest = Vault([new_key()]), backend.vault
    both = Vault([*[key.decode() for key in newest._keys], *[k.decode() for k in oldest._keys]])
    for _ in key_rotation.rotate(replace(backend, vault=both)):
        pass
    after = desk.value("SELECT sealed FROM subscription")
    assert newest.open_json(after) == oldest.open_json(before)
    assert key_rotation.keys_in_use(desk.conn, both).keys() == {newest.fingerprints[0]}


def test_a_subscription_is_added_on_its_page_and_its_secret_is_shown_once(dashboard, desk) -> None:
    browser = dashboard.sign_in("ann", scopes=ALL)
    form = {"address": "https://example.org/hooks?key=hunter2", "name": "<b>mine</b>"}
    page = browser.submit("/subscriptions", "/subscriptions", form)
    (secret,) = re.findall(r"whsec_[A-Za-z0-9+/=]+", page.text)
    shown = browser.get("/subscriptions").text
    assert "&lt;b&gt;mine&lt;/b&gt;" in shown
    assert secret not in shown
    assert "hunter2" not in shown
    wrong = browser.submit("/subscriptions", "/subscriptions", {"address": "http://example.org"})
    assert wrong.status_code == 422
    assert 'value="http://example.org"' in wrong.text
    id = desk.value("SELECT id FROM subscription")
    for act, state in (("test", "active"), ("pause", "paused"), ("resume", "active")):
        browser.send(f"/subscriptions/{id}/{act}", {"csrf": browser.csrf})
        assert desk.value("SELECT state FROM subscription") == state
    assert desk.rows("SELECT type FROM delivery") == [("test",)]
    browser.send(f"/subscriptions/{id}/remove", {"csrf": browser.csrf})
    assert desk.rows("SELECT 1 FROM subscription") == []
