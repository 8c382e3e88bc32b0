"""The audit trail: one row for each act, in the act's transaction, for those who may read it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest
from support.rest import SECRET
from support.waiting import until

from core import TaskOutput
from core.dashboard.pages.auth import Refusals
from core.ledger import audit as ledger
from core.plugins import get_registry
from core.rest.app import build
from core.scopes import ALL
from core.service import tokens
from core.service.accounts import actions
from core.service.accounts.erase import erase_user
from core.service.accounts.key_rotation import rotate
from core.states import Act
from core.web.request_rates import Rate

NEW = {"integration_domain": "locked", "credentials": {"password": SECRET}, "user_id": "ann"}


@pytest.fixture
def operator(api):
    return api.client(api.token(scopes=ALL))


@pytest.fixture
def acts(desk):
    """Return a function that returns the new acts since its last call, without those of tests."""
    seen = 0

    def new():
        nonlocal seen
        rows = desk.rows("SELECT id, act, target_id FROM audit WHERE id > %s ORDER BY id", seen)
        seen = max([seen, *(id for id, *_ in rows)])
        return [act for _, act, _ in rows]

    return new


def test_each_act_over_rest_leaves_exactly_one_row(api, desk, acts, operator) -> None:
    acts()
    account = operator.post("/v1/user-integrations", json=NEW).json()["id"]
    assert acts() == ["account.connect"]
    place = f"/v1/user-integrations/{account}"
    changes = {"config": {"name": "me", "mood": "good"}, "name": "x", "deletions": "keep"}
    for method, path, body, expected in (
        ("POST", "/v1/user-integrations", NEW, ["account.reconnect"]),
        ("PATCH", place, {"credentials": {"password": "new"}}, ["account.reconnect"]),
        ("PATCH", place, changes, ["account.configure"]),
        ("PATCH", place, {"poll_interval_minutes": 3}, ["account.configure"]),
        ("PATCH", place, {}, []),
        ("POST", "/v1/user-integrations", NEW | {"credentials": {"password": "wrong"}}, []),
        ("DELETE", f"{place}?content=keep", None, ["account.disconnect"]),
        ("DELETE", f"{place}?content=keep", None, []),
        ("DELETE", f"{place}?content=delete", None, ["account.erase"]),
        ("DELETE", "/v1/users/ann", None, ["user.erase"]),
        ("POST", "/v1/tokens", {"scopes": ["content:read"]}, ["token.create"]),
    ):
        answer = operator.request(method, path, json=body)
        assert acts() == expected, (method, path, body, answer.text)
    id = answer.json()["id"]
    assert operator.delete(f"/v1/tokens/{id}").status_code == 204
    assert acts() == ["token.revoke"]
    assert operator.delete(f"/v1/tokens/{id}").status_code == 404
    assert acts() == []
    for row in desk.rows("SELECT audit::text FROM audit"):
        assert SECRET not in row[0]


def test_a_person_with_accounts_is_erased_in_one_act(api, desk, acts, operator) -> None:
    for name in "abc":
        desk.account(name, user_id="ann")
    acts()
    assert operator.delete("/v1/users/ann?now=true").json()["accounts"] == 3
    assert acts() == ["user.erase"]


def test_the_erasure_of_a_person_and_a_saver_do_not_wait_for_each_other(
    backend, desk, database
) -> None:
    account = desk.account(user_id="ann")
    desk.root(account)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool:
        with database.connection() as saver, saver.transaction():
            # A saver locks its tasks. Then it adds content, with a reference to the account.
            saver.execute("SELECT FROM sync_task FOR UPDATE")
            erasure = pool.submit(erase_user, backend, "ann")
            until(lambda: desk.value(waiting) > 0, "the erasure waits")
            saver.execute("SELECT FROM user_integration FOR KEY SHARE")
        assert erasure.result().accounts == 1
    assert desk.value("SELECT count(*) FROM audit WHERE act = 'user.erase'") == 1


def test_each_decision_on_a_held_deletion_leaves_one_row(api, desk, acts, operator) -> None:
    account = desk.account(user_id="ann")
    run = desk.run(account)
    desk.keep(account, TaskOutput("1", "x"))
    held = desk.hold(account, run, "1")
    acts()
    operator.post(f"/v1/held-deletions/{held}/refuse")
    operator.post(f"/v1/held-deletions/{held}/accept")
    assert acts() == ["deletion.refuse", "deletion.accept"]
    assert set(desk.rows("SELECT user_id FROM audit WHERE target_type = 'held_deletion'")) == {
        ("ann",)
    }


def test_sign_ins_and_refused_ones_leave_one_row_each(dashboard, desk, acts) -> None:
    token = dashboard.token("ann")
    acts()
    browser = dashboard.stranger()
    assert browser.send("/sign-in", {"token": "polling_" + "x" * 43}).status_code == 401
    assert acts() == ["sign_in.refuse"]
    browser.send("/sign-in", {"token": token})
    assert acts() == ["sign_in.open"]
    refused, opened = desk.rows(
        "SELECT channel, actor_user_id, address, token_id IS NULL FROM audit"
        " WHERE act LIKE 'sign_in.%%' ORDER BY id"
    )
    assert refused == ("browser", None, "127.0.0.1", True)
    assert opened == ("dashboard", "ann", "127.0.0.1", False)


def test_refused_sign_ins_do_not_fill_the_table(dashboard, desk, monkeypatch) -> None:
    """A process writes one row each second, with the number of refusals since the row before."""
    from core.dashboard.pages import auth

    monkeypatch.setattr(auth, "_refusals", refusals := auth.Refusals())
    monkeypatch.setattr("core.web.wrong_tokens.BURST", 5)
    monkeypatch.setattr("core.web.wrong_tokens.MAX_WAITING", 0)
    browser = dashboard.stranger()
    for number in range(20):
        if number == 19:
            refusals._rate = Rate(auth.REFUSALS_PER_SECOND, 0.0)  # a second later
        status = browser.send("/sign-in", {"token": "wrong"}).status_code
        assert status == (401 if number < 5 else 429)
        if number == 0:
            refusals._rate.charge(None, 1_000.0)
    rows = desk.rows("SELECT detail FROM audit WHERE act = 'sign_in.refuse' ORDER BY id")
    assert rows == [({"attempts": 1},), ({"attempts": 19},)]


def test_a_second_of_refused_sign_ins_is_one_row() -> None:
    refusals, begun = Refusals(), time.monotonic()
    recorded = [number for _ in range(1_000) if (number := refusals.count()) is not None]
    assert len(recorded) <= 1 + (time.monotonic() - begun)


def test_one_user_cannot_fill_the_table(api, desk, monkeypatch) -> None:
    monkeypatch.setattr(ledger, "MAX_ACTS_PER_HOUR", 3)
    account = desk.account(user_id="ann")
    ann, bob = (api.client(api.token(name, scopes=ALL)) for name in ("ann", "bob"))

    def rename(client):
        return client.patch(f"/v1/user-integrations/{account}", json={"name": "x"}).status_code

    operator = api.client(api.token(scopes=ALL))
    assert [rename(operator) for _ in range(4)] == [200] * 4, "they do not count for the user"
    assert [rename(ann) for _ in range(4)] == [200, 200, 200, 429]
    assert rename(operator) == 200
    assert bob.post("/v1/tokens", json={"scopes": ["content:read"]}).status_code == 201
    desk.conn.execute("UPDATE audit SET at = at - interval '2 hours'")
    assert rename(ann) == 200


def test_a_user_with_too_many_acts_can_still_revoke_and_delete(api, desk, monkeypatch) -> None:
    account, stolen = desk.account(user_id="ann"), api.token("ann", scopes=ALL)
    ann = api.client(api.token("ann", scopes=ALL))
    monkeypatch.setattr(ledger, "MAX_ACTS_PER_HOUR", 1)
    place = f"/v1/user-integrations/{account}"
    assert [ann.patch(place, json={"name": "x"}).status_code for _ in range(2)] == [200, 429]
    [id] = [each["id"] for each in ann.get("/v1/tokens").json()["items"]][:1]
    for path in (f"{place}?content=keep", f"{place}?content=delete", f"/v1/tokens/{id}"):
        assert ann.delete(path).status_code == 204, path
    assert api.client(stolen).get("/v1/tokens").status_code == 401


def test_a_rotation_of_the_keys_leaves_one_row(backend, desk, acts) -> None:
    for _ in rotate(backend):
        pass
    assert acts() == ["keys.rotate"]


def test_an_act_over_rest_names_its_author_and_its_request(api, desk) -> None:
    token = api.token("ann", scopes=ALL)
    answer = api.client(token).post(
        "/v1/user-integrations", json=NEW, headers={"X-Request-Id": "seven"}
    )
    ((row,),) = desk.rows("SELECT to_jsonb(a) FROM audit a WHERE act = 'account.connect'")
    id = desk.value("SELECT id::text FROM api_token")
    assert row | {"at": 0, "id": 0, "changed_xid": 0} == {
        "id": 0, "at": 0, "changed_xid": 0, "act": "account.connect", "channel": "api",
        "actor": None, "token_id": id, "actor_user_id": "ann", "address": "127.0.0.1",
        "request_id": "seven", "target_type": "account", "target_id": answer.json()["id"],
        "user_id": "ann", "detail": {"integration_domain": "locked", "name": "me"},
    }  # fmt: skip


def test_a_failed_act_leaves_no_row(api, desk, acts, operator, monkeypatch) -> None:
    account = desk.account(domain="locked", user_id="ann")
    acts()

    monkeypatch.setattr(ledger, "RECORD_OF_ACCOUNT", "SELECT 1/0 WHERE %(account)s IS NOT NULL")
    assert operator.delete(f"/v1/user-integrations/{account}?content=keep").status_code == 500
    assert desk.value("SELECT sync_status FROM user_integration") == "active"
    assert acts() == []


KILLED = """
import os, signal, sys
from uuid import UUID

import psycopg

from core import Member
from core.environment import Environment
from core.ledger import audit
from core.service import organizations, sessions, subscriptions, tokens
from core.service.authorization import LOCAL_OPERATOR
from core.service.accounts import actions, disconnect, erase, key_rotation
from core.service.backend import open_backend
from core.service.content import deletions
from core.service.fleet import limits
from core.settings import LimitOverride, Settings
from core.states import Act

act, moment, account, token, secret, held, organization, subscription = sys.argv[1:]
settings = Settings(_env_file=None)
environment = Environment(
    settings.database_url.get_secret_value(),
    settings.redis_url.get_secret_value(),
    [key.get_secret_value() for key in settings.secret_keys],
    embedded=False,
)
backend = open_backend(settings, environment)
account = UUID(account)
recorded, leave = [], psycopg.Transaction.__exit__

def noting(original):
    def note(*arguments, **more):
        original(*arguments, **more)
        recorded.append(True)
    return note

def leaving(transaction, *error):
    if recorded and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = leave(transaction, *error)
    is_committed = transaction.connection.info.transaction_status == 0
    if recorded and is_committed:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

audit.record = noting(audit.record)
audit.record_for_account = noting(audit.record_for_account)
psycopg.Transaction.__exit__ = leaving

with backend.database.connection() as conn:
    match act:
        case "token.create":
            tokens.create(conn, user_id=None)
        case "token.revoke":
            tokens.revoke(conn, UUID(token))
        case "sign_in.open":
            sessions.open_session(conn, secret)
        case "sign_in.end":
            sessions.end_sessions_named(conn, "eve")
        case "sign_in.refuse":
            with conn.transaction():
                sessions.record_refusals(conn)
        case "account.connect":
            actions.connect(backend, "hello-world", config={}, credentials={}, user_id="new")
        case "account.reconnect":
            actions.connect(backend, "hello-world", config={}, credentials={}, user_id="ann")
        case "account.configure":
            actions.configure(backend, account, name="new", interval_minutes=3)
        case "account.disconnect":
            disconnect.disconnect_account(backend, account)
        case "account.erase_content":
            erase.hide_account(backend, account, keeps_account=True)
        case "account.erase":
            erase.erase_account(backend, account)
        case "user.erase":
            erase.erase_user(backend, "ann")
        case "organization.connect":
            integration = backend.registry.get("hello-world")
            integration.members = classmethod(lambda *_: [Member("1", "one")])
            organizations.connect(backend, "hello-world", name="new", credentials={})
        case "organization.disconnect":
            organizations.disconnect(backend, UUID(organization))
        case "subscription.add":
            new = subscriptions.NewSubscription("content", "webhook", "https://example.org")
            subscriptions.add(backend, LOCAL_OPERATOR, new)
        case "subscription.remove":
            subscriptions.remove(conn, LOCAL_OPERATOR, UUID(subscription))
        case "deletion.accept":
            deletions.accept(backend, [int(held)])
        case "deletion.refuse":
            deletions.refuse(backend, [int(held)])
        case "limit.change":
            limits.change(backend, "gmail", "quota", LimitOverride(units=5))
        case "keys.rotate":
            for _ in key_rotation.rotate(backend):
                pass
"""

# The state of the database that an act changes.
STATE = """
SELECT (SELECT count(*) FROM api_token), (SELECT count(revoked_at) FROM api_token),
    (SELECT count(*) FROM session),
    (SELECT array_agg(sync_status || name || version ORDER BY id) FROM user_integration),
    (SELECT array_agg(state) FROM held_deletion),
    (SELECT array_agg(name || (ending_since IS NULL) ORDER BY name) FROM organization),
    (SELECT count(*) FROM limit_override), (SELECT count(*) FROM subscription)
"""
WITHOUT_STATE = (Act.KEYS_ROTATE, Act.SESSION_REFUSE)
"""Acts of which only the row remains."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("act", Act)
def test_an_act_and_its_row_survive_a_kill_together_or_not_at_all(
    backend, desk, settings, secret_key, act, moment
) -> None:
    """Kill the process right before and right after the act's transaction commits."""
    account = actions.connect(
        replace(backend, registry=get_registry()),
        "hello-world", config={}, credentials={}, user_id="ann",
    ).id  # fmt: skip
    other = desk.account("other", user_id="bob")
    desk.keep(other, TaskOutput("1", "x"))
    held = desk.hold(other, desk.run(other), "1")
    created = tokens.create(desk.conn, user_id=None)
    organization = uuid4()
    desk.conn.execute(
        "INSERT INTO organization (id, user_id, integration_domain, name, config, credentials)"
        " VALUES (%s, 'ann', 'hello-world', 'old', '{}', %s)",
        (organization, backend.vault.seal_json({})),
    )
    subscription = uuid4()
    desk.conn.execute(
        "INSERT INTO subscription (id, name, kind, channel, address, sealed)"
        " VALUES (%s, 'old', 'content', 'webhook', 'x', %s)",
        (subscription, backend.vault.seal_json({})),
    )
    desk.conn.execute(
        "INSERT INTO session (digest, issuer, subject, name, role, expires_at)"
        " VALUES ('x', 'https://example.org', '1', 'eve', 'viewer', now() + interval '1 hour')"
    )
    desk.conn.execute("DELETE FROM audit")
    before = desk.rows(STATE)
    environment = os.environ | {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "POLLING_REDIS_NAMESPACE": settings.redis_namespace,
        "POLLING_SECRET_KEYS": secret_key,
        "POLLING_HOME": str(settings.home),
    }
    arguments = [act, moment, account, created.id, created.secret, held, organization]
    arguments.append(subscription)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    expected = [] if moment == "before" else [(str(act),)]
    until(lambda: desk.rows("SELECT act FROM audit") == expected, "the transaction has ended")
    if act not in WITHOUT_STATE:
        assert (desk.rows(STATE) == before) is (moment == "before")


# Reading
# --------------------------------------------------------------------------------------------------


def test_the_trail_is_read_from_a_cursor(api, desk, operator) -> None:
    for number in range(5):
        operator.post("/v1/tokens", json={"scopes": ["content:read"], "name": str(number)})
    found, after = [], {}
    while True:
        page = operator.get("/v1/audit", params={"limit": 2, "act": "token.create", **after}).json()
        found += [one["detail"]["name"] for one in page["acts"]]
        after = {"after": page["cursor"]}
        if not page["more"]:
            break
    assert found[-5:] == list("01234")
    assert operator.get("/v1/audit", params=after).json()["acts"] == []
    latest = operator.get("/v1/audit", params={"after": "latest"}).json()
    operator.post("/v1/tokens", json={"scopes": ["content:read"], "name": "new"})
    (new,) = operator.get("/v1/audit", params={"after": latest["cursor"]}).json()["acts"]
    assert new["detail"]["name"] == "new"
    for cursor in ("x", "WyJ4IiwgMSwgMV0"):
        assert operator.get("/v1/audit", params={"after": cursor}).status_code in (410, 422)
    none = operator.get("/v1/audit", params={"until": "2020-01-01T00:00:00Z"}).json()
    assert none["acts"] == []


def test_an_act_that_commits_late_is_not_missed(api, desk, database, operator) -> None:
    with database.connection() as late, late.transaction():
        tokens.create(late, user_id=None, name="late")
        operator.post("/v1/tokens", json={"scopes": ["content:read"], "name": "early"})
        before = operator.get("/v1/audit").json()
    after = operator.get("/v1/audit", params={"after": before["cursor"]}).json()
    names = [
        one["detail"]["name"] for page in (before, after) for one in page["acts"]
        if one["detail"].get("name")
    ]  # fmt: skip
    assert sorted(names) == ["early", "late"]


def test_a_user_sees_only_acts_on_own_objects_and_not_from_where_others_came(
    api, desk, operator
) -> None:
    operator.post("/v1/user-integrations", json=NEW)
    operator.post("/v1/user-integrations", json=NEW | {"user_id": "bob"})
    ann = api.client(api.token("ann", scopes=ALL))
    ann.patch(f"/v1/user-integrations/{ann.get('/v1/user-integrations').json()['items'][0]['id']}",
              json={"name": "mine"})  # fmt: skip
    seen = ann.get("/v1/audit").json()["acts"]
    assert {one["user_id"] for one in seen} == {"ann"}
    connected, changed = (
        next(one for one in seen if one["act"] == act)
        for act in ("account.connect", "account.configure")
    )
    for name in ("channel", "address", "token_id", "request_id", "actor"):
        assert connected[name] is None, name
    assert (changed["channel"], changed["address"]) == ("api", "127.0.0.1")
    assert changed["detail"]["changed"] == ["name"]
    assert ann.get("/v1/audit", params={"user_id": "bob"}).status_code == 403
    reader = api.client(api.token("ann"))
    assert reader.get("/v1/audit").json()["code"] == "scope-missing"


def test_the_document_lists_all_acts(api) -> None:
    parameters = build(api.backend).openapi()["paths"]["/v1/audit"]["get"]["parameters"]
    (act,) = [one for one in parameters if one["name"] == "act"]
    assert set(act["schema"]["anyOf"][0].get("enum", ())) <= {str(act) for act in Act}


def test_old_rows_are_deleted(desk) -> None:
    tokens.create(desk.conn, user_id=None)
    tokens.create(desk.conn, user_id=None)
    desk.conn.execute("UPDATE audit SET at = now() - interval '2 days' WHERE id ="
                      " (SELECT min(id) FROM audit)")  # fmt: skip
    assert ledger.prune(desk.conn, 1.0)
    assert desk.value("SELECT count(*) FROM audit") == 1
    assert ledger.prune(desk.conn, 0.0001, lambda seconds: None)
    assert desk.value("SELECT count(*) FROM audit") == 1
