"""Scopes and roles: a token and a person do no more than these name, and create no stronger token.

The walks fail for a route or a page that the tables below do not name.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from support.dashboard import form

from core.dashboard.app import PAGES
from core.rest.app import build
from core.scopes import ALL, DEFAULT, SCOPES_OF_ROLES, Role, Scope
from core.service import sessions, tokens
from core.service.authorization import Person
from core.web import session_cookie

CONTENT, CONNECT, OPERATE, METRICS, TOKENS = (
    "content:read",
    "accounts:connect",
    "fleet:operate",
    "metrics:read",
    "tokens:admin",
)
AUDIT = "audit:read"
STATUS, DETAILS = {CONTENT, CONNECT, OPERATE, METRICS}, {CONTENT, OPERATE}
NOBODY = {"/healthz", "/readyz", "/v1/hints/{integration_domain}"}
"""Routes that need no token."""

ROUTES = {
    "list_integrations get_integration list_outages list_user_integrations get_user_integration"
    " list_runs list_all_runs get_run list_limits list_users read_use read_quotas": STATUS,
    "get_state list_tasks list_stopped_tasks get_task list_held_deletions get_held_deletion"
    " list_held_items": DETAILS,
    "list_content get_content get_raw_content get_thread read_changes export_content": {CONTENT},
    "create_user_integration change_user_integration delete_user_integration"
    " check_user_integration check_user_integrations disconnect_user_integrations"
    " check_new_account erase_user start_authorization"
    " redeem_connect_code": {CONNECT},
    "pause_user_integrations resume_user_integrations sync_user_integrations"
    " pause_integration resume_integration pause_user_integration resume_user_integration"
    " resync_user_integrations sync_user_integration resync_user_integration"
    " reread_user_integration cancel_run retry_tasks"
    " discard_tasks retry_task discard_task accept_held_deletion refuse_held_deletion"
    " change_quotas change_limit reset_limit list_organizations get_organization"
    " connect_organization sync_organization"
    " disconnect_organization": {OPERATE},
    "list_subscriptions add_subscription get_subscription remove_subscription pause_subscription"
    " resume_subscription test_subscription replay_subscription": {OPERATE},
    "metrics": {METRICS},
    "list_tokens create_token revoke_token": {TOKENS},
    "read_audit_trail": {AUDIT},
}
"""The scopes of which one allows a route of the API."""

PAGES_ALLOWED = {
    "account_list account_page account_timeline integrations list_runs list_users"
    " list_limits": STATUS,
    "show_run show_task list_parked list_deletions show_deletion": DETAILS,
    "list_content show_content preview_content raw_content show_thread": {CONTENT},
    "settings_page change_settings credentials_page reconnect connect.authorize edit.authorize"
    " check disconnect erase connect_page connect connected": {CONNECT},
    "sync resync actions.reread actions.pause actions.resume connect.pause connect.resume"
    " cancel_run retry_task retry_edited discard_task retry discard retry_all discard_all accept"
    " resume_selected pause_selected sync_selected"
    " refuse change_limit list_organizations connect_organization list_members"
    " disconnect_organization": {OPERATE},
    "list_subscriptions add_subscription test_subscription pause_subscription resume_subscription"
    " remove_subscription": {OPERATE},
    "create_token revoke_token": {TOKENS},
    "audit_trail": {AUDIT},
    "access overview sign_out sign_out_everywhere": set(ALL),
}
"""The scopes of which one allows a page or an action of the dashboard."""

OPEN_PAGES = {
    "sign_in", "sign_in_page", "begin", "signed_in", "returned", "confirm", "cancel"
}  # fmt: skip
ISSUER = "https://login.example.org"
GIVEN = [(scope,) for scope in ALL] + [SCOPES_OF_ROLES[role] for role in Role]
"""The scopes of the walks: each alone, and those of each role."""

VALUES = {
    "user_integration_id": str(uuid4()),
    "run_id": str(uuid4()),
    "token": str(uuid4()),
    "token_id": str(uuid4()),
    "task_id": 10**12,
    "held_deletion_id": 10**12,
    "organization_id": str(uuid4()),
    "subscription_id": str(uuid4()),
    "content": 10**12,
    "content_id": 10**12,
    "user_id": "nobody",
    "domain": "nowhere",
    "integration_domain": "nowhere",
    "limit_name": "none",
}
"""Names of rows that do not exist, so that the walk changes nothing."""


def allowed(table):
    return {name: scopes for names, scopes in table.items() for name in names.split()}


@pytest.mark.parametrize("scopes", GIVEN, ids=" ".join)
def test_scopes_allow_their_routes_and_no_others(api, scopes) -> None:
    expected, client = allowed(ROUTES), api.client(api.token(scopes=scopes))
    seen = set()
    for path, methods in build(api.backend).openapi()["paths"].items():
        if path in NOBODY:
            continue
        for method, operation in methods.items():
            answer = client.request(method.upper(), path.format(**VALUES), json={})
            problem = answer.json().get("code") if answer.status_code == 403 else None
            name = operation["operationId"]
            is_allowed = not expected[name].isdisjoint(scopes)
            assert (problem != "scope-missing") is is_allowed, (name, answer.text)
            assert "403" in operation["responses"], name
            seen.add(name)
    assert seen == expected.keys()


@pytest.mark.parametrize("scopes", GIVEN, ids=" ".join)
def test_scopes_allow_their_pages_and_no_others(dashboard, scopes) -> None:
    walk_pages(dashboard.sign_in(scopes=scopes), scopes)


@pytest.mark.parametrize("role", Role)
def test_a_person_may_open_the_pages_of_their_role_and_no_others(
    dashboard, conn, monkeypatch, role
) -> None:
    monkeypatch.setattr(dashboard.backend.settings, "oidc_issuer", ISSUER)
    browser = dashboard.stranger()
    id = sessions.open_session_of(conn, Person(ISSUER, "ann-1", "ann@example.org", role))
    browser.client.cookies.set(session_cookie.NAME, id)
    walk_pages(browser, SCOPES_OF_ROLES[role])


def walk_pages(browser, scopes) -> None:
    """Open all pages and press all buttons, with the ids of rows that do not exist."""
    expected = allowed(PAGES_ALLOWED)
    csrf, seen = {"csrf": browser.csrf}, set()
    for module in PAGES:
        for route in module.router.routes:
            short = f"{module.__name__.rpartition('.')[2]}.{route.name}"
            name = route.name if route.name in expected else short
            if route.name in OPEN_PAGES:
                continue
            seen.add(name)
            if route.name.startswith("sign_out"):
                continue
            path = route.path.format(**VALUES)
            answer = browser.get(path) if "GET" in route.methods else browser.send(path, csrf)
            refused = answer.status_code == 403 and "lacks a scope" in answer.text
            is_allowed = not expected[name].isdisjoint(scopes)
            assert refused is not is_allowed, (short, answer.status_code)
            assert not refused or answer.headers["content-type"].startswith("text/html"), short
    assert seen == expected.keys()


def test_each_role_has_the_scopes_of_the_next(api) -> None:
    assert set(SCOPES_OF_ROLES) == set(Role)
    for stronger, weaker in itertools.pairwise(SCOPES_OF_ROLES.values()):
        assert set(stronger) > set(weaker)
    assert set(SCOPES_OF_ROLES[Role.ADMIN]) == set(Scope)
    assert SCOPES_OF_ROLES[Role.VIEWER] == (METRICS,)


def test_a_token_gets_the_scopes_of_a_role(api, dashboard, conn) -> None:
    admin = api.client(api.token(scopes=ALL))
    for role in Role:
        answer = admin.post("/v1/tokens", json={"role": role})
        assert (answer.status_code, answer.json()["scopes"]) == (201, list(SCOPES_OF_ROLES[role]))
    answer = admin.post("/v1/tokens", json={"role": "viewer", "scopes": [AUDIT]})
    assert answer.json()["scopes"] == [METRICS, AUDIT]
    for body in ({}, {"role": None}, {"role": "emperor"}, {"role": ["viewer"]}):
        assert admin.post("/v1/tokens", json=body).status_code == 422
    operator = api.client(api.token(scopes=[*SCOPES_OF_ROLES[Role.OPERATOR], TOKENS]))
    answer = operator.post("/v1/tokens", json={"role": "admin"})
    assert (answer.status_code, answer.json()["code"]) == (403, "scope-not-yours")


def test_the_dashboard_offers_the_roles_that_one_may_give(dashboard, conn) -> None:
    browser = dashboard.sign_in(scopes=[*SCOPES_OF_ROLES[Role.OPERATOR], TOKENS])
    page = browser.get("/access").text
    offered = {role for role in Role if f'<option value="{role}"' in page}
    assert offered == {Role.OPERATOR, Role.VIEWER}
    browser.submit("/access", "/access/tokens", {"role": "viewer", "name": "seen"})
    assert conn.execute("SELECT scopes FROM api_token WHERE name = 'seen'").fetchone() == (
        [METRICS],
    )
    answer = browser.submit("/access", "/access/tokens", {"role": "admin"})
    assert (answer.status_code, "scopes that you have yourself" in answer.text) == (422, True)


def test_the_navigation_shows_only_pages_that_open(dashboard) -> None:
    for scope, links in ((METRICS, {"/accounts", "/runs"}), (TOKENS, set())):
        page = dashboard.sign_in("ann", scopes=[scope]).get("/access").text
        shown = {
            link
            for link in ("/accounts", "/runs", "/content", "/parked")
            if f'href="{link}"' in page
        }
        assert shown == links, scope


@pytest.mark.parametrize("scope", [OPERATE, METRICS, TOKENS])
def test_a_scope_of_a_user_does_not_reach_all_users(api, scope, conn) -> None:
    user = api.client(api.token("ann", scopes=[scope]))
    if scope == METRICS:
        assert user.get("/metrics").status_code == 403
    elif scope == OPERATE:
        assert user.post("/v1/integrations/locked/pause").status_code == 403
    else:
        mine = tokens.create(conn, user_id="ann").id
        others = [tokens.create(conn, user_id=name).id for name in ("bob", None)]
        listed = {item["user_id"] for item in user.get("/v1/tokens").json()["items"]}
        assert listed == {"ann"}
        for id in (*others, uuid4()):
            assert user.delete(f"/v1/tokens/{id}").status_code == 404
        assert user.delete(f"/v1/tokens/{mine}").status_code == 204
        revoked = conn.execute("SELECT id FROM api_token WHERE revoked_at IS NOT NULL").fetchall()
        assert revoked == [(mine,)]


# Tokens that create tokens
# --------------------------------------------------------------------------------------------------


def created(client, **body):
    return client.post("/v1/tokens", json={"scopes": [CONTENT]} | body)


def test_a_token_creates_no_token_that_can_do_more(api, conn) -> None:
    admin = api.client(api.token(scopes=[TOKENS, CONTENT]))
    user = api.client(api.token("ann", scopes=ALL))
    for client, body, code in [
        (admin, {"scopes": [CONTENT, OPERATE]}, "scope-not-yours"),
        (admin, {"scopes": list(ALL)}, "scope-not-yours"),
        (user, {"user_id": "bob"}, "token-for-another-user"),
    ]:
        answer = created(client, **body)
        assert (answer.status_code, answer.json()["code"]) == (403, code)
    for body in ({"scopes": []}, {"scopes": ["everything"]}, {"scopes": CONTENT}, {"admin": True}):
        assert created(admin, **body).status_code == 422
    assert conn.execute("SELECT count(*) FROM api_token").fetchone() == (2,)
    # Without a user id, the token of a user is again one of this user.
    assert created(user).status_code == 201
    assert conn.execute(
        "SELECT user_id FROM api_token ORDER BY created_at DESC LIMIT 1"
    ).fetchone() == ("ann",)  # fmt: skip


def test_a_token_creates_no_token_that_outlives_it(api) -> None:
    soon = api.client(api.token(scopes=ALL, days=1))
    latest = datetime.now(UTC) + timedelta(days=1)
    for days in (None, 0.5, 30):
        expires = created(soon, expires_in_days=days).json()["expires_at"]
        assert expires is not None
        assert datetime.fromisoformat(expires) <= latest
    for_ever = api.client(api.token(scopes=ALL))
    assert created(for_ever).json()["expires_at"] is None


def test_a_user_s_token_creates_a_bounded_number_of_tokens(api, monkeypatch) -> None:
    monkeypatch.setattr(tokens, "MAX_TOKENS_PER_USER", 5)
    mallory = api.client(api.token("mallory", scopes=list(Scope)))
    body = {"scopes": ["content:read"]}
    for _ in range(4):
        made = mallory.post("/v1/tokens", json=body)
        assert made.status_code == 201
        # A revoked token leaves a row too.
        assert mallory.delete(f"/v1/tokens/{made.json()['id']}").status_code == 204
    answer = mallory.post("/v1/tokens", json=body)
    assert (answer.status_code, answer.json()["code"]) == (429, "tokens-exhausted")
    operator = api.client(api.token(scopes=list(Scope)))
    assert operator.post("/v1/tokens", json=body | {"user_id": "mallory"}).status_code == 201


@pytest.mark.parametrize("days", [0, -1, 1e9, "NaN", "Infinity", "soon"])
def test_an_odd_expiry_is_refused(api, dashboard, days) -> None:
    assert created(api.client(api.token(scopes=ALL)), expires_in_days=days).status_code == 422
    browser = dashboard.sign_in(scopes=ALL)
    answer = browser.post("/access/tokens", {"scopes": CONTENT, "days": str(days)})
    assert (answer.status_code, "Days: enter a number" in answer.text) == (422, True)


def test_a_created_token_works_until_it_is_revoked(api, conn) -> None:
    admin = api.client(api.token(scopes=ALL))
    answer = created(admin, scopes=[METRICS, CONTENT, CONTENT], user_id="ann", name="reader")
    body = answer.json()
    assert (answer.status_code, body["scopes"]) == (201, [CONTENT, METRICS])
    reader = api.client(body["token"])
    assert reader.get("/v1/changes").status_code == 200
    assert reader.post("/v1/integrations/locked/pause").status_code == 403
    listed = admin.get("/v1/tokens").text
    assert ("reader" in listed, body["token"] in listed) == (True, False)
    assert admin.delete(f"/v1/tokens/{body['id']}").status_code == 204
    assert reader.get("/v1/changes").status_code == 401
    assert admin.delete(f"/v1/tokens/{body['id']}").status_code == 404


def test_a_token_works_until_it_expires(api, conn) -> None:
    token = api.token("ann")
    client = api.client(token)
    conn.execute("UPDATE api_token SET expires_at = now() + interval '1 hour'")
    assert client.get("/v1/user-integrations").status_code == 200
    conn.execute("UPDATE api_token SET expires_at = now()")
    assert client.get("/v1/user-integrations").status_code == 401
    assert sessions.open_session(conn, token) is None


def test_the_dashboard_creates_and_revokes_tokens(dashboard, conn) -> None:
    browser = dashboard.sign_in(scopes=ALL)
    fields = {"scopes": [CONTENT, CONNECT], "user": "ann", "name": "<b>Ann's</b>", "days": "7"}
    page = browser.submit("/access", "/access/tokens", fields)
    secret = page.text.split('<code id="created">')[1].split("<")[0]
    client = dashboard.client(secret)
    assert client.get("/v1/changes").status_code == 200
    assert client.get("/v1/tokens").status_code == 403
    assert secret not in browser.get("/access").text
    assert "<b>Ann" not in page.text
    ((id, user, scopes, days),) = conn.execute("""
        SELECT id, user_id, scopes, expires_at::date - now()::date FROM api_token WHERE name <> ''
        """).fetchall()
    assert (user, scopes, days) == ("ann", [CONTENT, CONNECT], 7)
    assert browser.send(f"/access/tokens/{id}/revoke", {"csrf": "x"}).status_code == 403
    assert browser.post(f"/access/tokens/{id}/revoke").status_code == 303
    assert client.get("/v1/changes").status_code == 401


def test_the_dashboard_creates_nothing_stronger(dashboard, conn) -> None:
    ann = dashboard.sign_in("ann", scopes=[TOKENS, CONTENT])
    offered = form(ann.get("/access").text, "/access/tokens", "scopes").attributes
    assert "user" not in offered
    for fields in (
        {"scopes": OPERATE},
        {"scopes": CONTENT, "user": "bob"},
        {"scopes": "everything"},
        {},
    ):
        assert ann.post("/access/tokens", fields).status_code == 422, fields
    other = tokens.create(conn, user_id="bob").id
    assert ann.post(f"/access/tokens/{other}/revoke").status_code == 404
    assert conn.execute("SELECT count(*) FROM api_token").fetchone() == (2,)
    assert 'id="tokens"' not in dashboard.sign_in("ann").get("/access").text


def test_a_session_has_the_scopes_of_its_token(dashboard, conn) -> None:
    browser = dashboard.sign_in("ann", scopes=[CONTENT])
    assert browser.get("/content").status_code == 200
    conn.execute("UPDATE api_token SET scopes = '{metrics:read}'")
    assert browser.get("/content").status_code == 403


def test_a_scope_of_a_newer_version_gives_nothing(api, conn) -> None:
    client = api.client(api.token(scopes=[METRICS]))
    conn.execute("UPDATE api_token SET scopes = '{content:write,CONTENT:READ}'")
    assert client.get("/v1/changes").status_code == 403


def test_a_token_can_do_by_default_what_it_could_before_scopes(api) -> None:
    assert set(DEFAULT) == set(ALL) - {Scope.AUDIT_READ, Scope.TOKENS_ADMIN}
    for scope, path in itertools.product([CONTENT], ("/v1/changes", "/metrics")):
        assert api.admin.get(path).status_code == 200, scope
    assert api.admin.get("/v1/tokens").status_code == 403
