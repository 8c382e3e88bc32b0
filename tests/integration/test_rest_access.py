"""Access control of the API: tokens, and rows of other users."""

from __future__ import annotations

import itertools
import json
import re
from uuid import uuid4

import pytest
from support.indexing import index_all
from support.rest import SECRET

from core import Concurrency, TaskOutput
from core.ledger import audit
from core.limits.keys import to_json
from core.rest.app import build
from core.scopes import ALL
from core.service import tokens
from core.states import Act
from core.web import wrong_tokens

OPEN = {"/healthz", "/readyz", "/v1/hints/{integration_domain}"}
"""Routes without a token. Their answers contain nothing about any account."""

FOR_ALL = {"list_integrations", "get_integration", "create_user_integration"}
# Numbers of a user's accounts, without rows: `test_outages.py`, `test_use.py` and
# `test_quotas.py` compare users.
SUMMARIES = {"list_outages", "list_users", "read_use", "read_quotas"}
OWN = {"list_tokens", "read_audit_trail"}
OPERATORS_OWN = {"list_organizations", "get_organization"}
MARK = "only-the-owner-may-read-this"


def operations(document):
    """Yield (method, path, operation) of every route."""
    for path, methods in sorted(document["paths"].items()):
        for method, operation in sorted(methods.items()):
            yield method, path, operation


@pytest.fixture
def owned(api, desk):
    """Connect an account of the user `owner` with rows of every kind.

    The result contains values for the parameters of all routes.
    """
    limits = to_json([Concurrency("places", 1)])
    account = desk.account(MARK, user_id="owner", config={"name": MARK}, limits=limits)
    desk.keep(account, TaskOutput("1", MARK, name=MARK, metadata={"x": MARK, "thread_id": MARK}))
    index_all(desk.conn)
    run = desk.run(account)
    desk.conn.execute(
        "UPDATE sync_task SET reason = %s, state = 'parked' WHERE run_id = %s", (MARK, run)
    )
    desk.conn.execute(
        "INSERT INTO sync_state VALUES (%s, 'p', %s, 1, 1)", (account, json.dumps(MARK))
    )
    audit.record_for_account(desk.conn, Act.ACCOUNT_CONNECT, account)
    organization = desk.value(
        "INSERT INTO organization (id, user_id, integration_domain, name, config, credentials)"
        " VALUES (gen_random_uuid(), 'owner', 'shop', %s, '{}', 'sealed') RETURNING id",
        MARK,
    )
    subscription = desk.value(
        "INSERT INTO subscription (id, name, kind, channel, user_id, address, sealed)"
        " VALUES (gen_random_uuid(), %s, 'content', 'webhook', 'owner', 'x', 'sealed')"
        " RETURNING id",
        MARK,
    )
    return {
        "subscription_id": str(subscription),
        "user_integration_id": str(account),
        "organization_id": str(organization),
        "run_id": str(run),
        "held_deletion_id": desk.hold(account, run, "1", parent=MARK),
        "token_id": tokens.create(desk.conn, user_id="owner", name=MARK).id,
        "task_id": desk.value("SELECT max(id) FROM sync_task"),
        "content_id": desk.value("SELECT id FROM user_integration_content"),
        "user_id": "owner",
        "integration_domain": "shop",
        "limit_name": "places",
    }


def call(client, method, path, operation, values, body=None, *, filtered=True):
    """Send one request, with every possible filter or without any."""
    filled = path.format(**values)
    values = values if filtered else {}
    queries = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    params = {name: values[name] for name in queries if name in values} | (
        {"content": "delete"} if "content" in queries and method == "delete" else {}
    )
    return client.request(
        method.upper(), filled, params=params, json=body if "requestBody" in operation else None
    )


BODIES = {
    "create_user_integration": {
        "integration_domain": "locked",
        "credentials": {"password": SECRET},
        "user_id": "owner",
    },
    "connect_organization": {"integration_domain": "shop", "name": MARK, "credentials": {}},
    "change_user_integration": {"name": "stolen"},
    "start_authorization": {"user_id": "owner"},
    "add_subscription": {"address": "https://example.org/", "user_id": "owner"},
    "create_token": {"scopes": ["content:read"], "user_id": "owner"},
    "redeem_connect_code": {"connect_code": "x", "user_id": "owner"},
    "pause_user_integrations": {"user_id": "owner"},
    "resume_user_integrations": {"user_id": "owner"},
    "sync_user_integrations": {"user_id": "owner"},
    "resync_user_integrations": {"user_id": "owner"},
    "check_user_integrations": {"user_id": "owner"},
    "disconnect_user_integrations": {"user_id": "owner"},
    "retry_tasks": {"type": "step"},
    "discard_tasks": {"type": "step"},
}


def test_every_route_needs_a_valid_token(api, owned, monkeypatch) -> None:
    monkeypatch.setattr(wrong_tokens, "DELAY_SECONDS", 0.0)
    strangers = [
        api.client(None),
        api.client("polling_" + "x" * 43),
        api.client(api.token("owner", days=-1)),
    ]
    seen = 0
    for method, path, operation in operations(build(api.backend).openapi()):
        if path in OPEN:
            continue
        for stranger in strangers:
            answer = call(stranger, method, path, operation, owned, {})
            assert answer.status_code == 401, (method, path, answer.text)
            assert answer.headers["www-authenticate"] == "Bearer"
            seen += 1
    assert seen > 60


def test_no_route_shows_a_user_the_rows_of_another(api, owned, desk) -> None:
    """Call all routes of the document with the ids of another user's rows."""
    before = desk.rows("SELECT id, name, sync_status, version FROM user_integration")
    foreign, seen = api.client(api.token("foreign", scopes=ALL)), 0
    walk = itertools.product(operations(build(api.backend).openapi()), (True, False))
    for (method, path, operation), filtered in walk:
        if path in OPEN or operation["operationId"] in FOR_ALL - {"create_user_integration"}:
            continue
        body = BODIES.get(operation["operationId"], {})
        answer = call(foreign, method, path, operation, owned, body, filtered=filtered)
        assert MARK not in answer.text, (method, path)
        listing = answer.status_code == 200 and (
            operation["operationId"] in OWN  # the caller's own token
            or not answer.content  # an export
            or not any(answer.json().get(name) for name in ("items", "changes", "acts"))
        )
        assert answer.status_code in (403, 404) or listing, (
            method,
            path,
            answer.status_code,
            answer.text,
        )
        if "{" in path:
            assert answer.status_code in (403, 404), (method, path, answer.text)
        seen += 1
    assert seen > 40
    assert desk.rows("SELECT id, name, sync_status, version FROM user_integration") == before
    assert desk.value("SELECT count(*) FROM user_integration_content") == 1


def test_the_owner_sees_the_rows_that_another_user_does_not(api, owned) -> None:
    """Without this, the test above would prove nothing."""
    owner, seen = api.client(api.token("owner", scopes=ALL)), 0
    for method, path, operation in operations(build(api.backend).openapi()):
        if (
            method == "get"
            and path not in OPEN | {"/metrics"}
            and operation["operationId"] not in FOR_ALL | SUMMARIES | OPERATORS_OWN
        ):
            answer = call(owner, method, path, operation, owned)
            assert answer.status_code == 200, (path, answer.text)
            assert MARK in answer.text or owned["user_integration_id"] in answer.text, path
            seen += 1
    assert seen >= 11


def test_rows_of_other_users_are_answered_like_missing_ones(api, owned) -> None:
    foreign = api.user("foreign")
    for path, there, nowhere in [
        ("/v1/user-integrations/{}", owned["user_integration_id"], str(uuid4())),
        ("/v1/runs/{}", owned["run_id"], str(uuid4())),
        ("/v1/tasks/{}", owned["task_id"], 10**12),
        ("/v1/user-integration-content/{}", owned["content_id"], 10**12),
    ]:
        answers = [foreign.get(path.format(id)) for id in (there, nowhere)]
        bodies = [
            re.sub(rf"\b{id}\b", "ID", json.dumps(answer.json() | {"request_id": ""}))
            for answer, id in zip(answers, (there, nowhere), strict=True)
        ]
        assert bodies[0] == bodies[1]


def test_a_cursor_gives_no_access_to_other_rows(api, owned, desk) -> None:
    for number in range(3):
        desk.account(f"f{number}", domain="locked", user_id="foreign")
    foreign, admin = api.user("foreign"), api.admin
    for path in ("/v1/user-integrations", "/v1/user-integration-content", "/v1/changes"):
        cursor = admin.get(path, params={"limit": 1}).json()["cursor"]
        if cursor is not None:
            answer = foreign.get(path, params={"after": cursor})
            assert answer.status_code == 200
            assert MARK not in answer.text


def test_a_revoked_token_is_refused_immediately(api, desk) -> None:
    token = api.token("u")
    assert api.client(token).get("/v1/changes").status_code == 200
    assert desk.value("SELECT last_used_at IS NOT NULL FROM api_token")
    desk.conn.execute("UPDATE api_token SET revoked_at = now()")
    assert api.client(token).get("/v1/changes").status_code == 401


def test_the_database_contains_no_token(api, desk) -> None:
    token = api.token("u")
    assert token.removeprefix("polling_") not in str(
        desk.rows("SELECT api_token::text FROM api_token")
    )


def test_only_operators_read_metrics(api) -> None:
    assert api.user("u").get("/metrics").status_code == 403
    assert api.admin.get("/metrics").status_code == 200


def test_large_bodies_are_refused_with_and_without_a_length(api) -> None:
    user = api.user("u")
    large = b'{"integration_domain": "' + b"x" * 2_000_000 + b'"}'
    headers = {"Content-Type": "application/json"}

    def unannounced():
        for start in range(0, len(large), 65_536):
            yield large[start : start + 65_536]

    for content in (large, unannounced()):
        answer = user.post("/v1/user-integrations", content=content, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (
            413,
            "application/problem+json",
        )


def test_unexpected_errors_reveal_nothing(api, monkeypatch, caplog) -> None:
    from core.service.pagination import PagedQuery

    def broken(*arguments, **more):
        raise RuntimeError(SECRET)

    monkeypatch.setattr(PagedQuery, "page", broken)
    answer = api.user("u").get("/v1/user-integrations")
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (500, "internal-error")
    assert SECRET not in answer.text + caplog.text
    assert "RuntimeError" in caplog.text


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/v1/user-integrations/no-uuid", "/v1/tasks/0", "/v1/tasks/99999999999999999999"],
)
def test_every_error_is_a_problem(api, path) -> None:
    answer = api.user("u").get(path)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status"} <= set(answer.json())


def test_unstorable_characters_are_refused_and_not_repeated(api) -> None:
    user = api.user("u")
    for path in ("/v1/user-integrations", "/v1/user-integration-content"):
        for name in ("user_id", "integration_domain", "after"):
            assert user.get(path, params={name: "a\0b"}).status_code in (403, 422)
    answer = user.post(
        "/v1/user-integrations",
        content=(
            rb'{"integration_domain": "locked", "name": "\ud800", "config": {"\ud800": "\ud800"}}'
        ),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    config = (
        rb'{"integration_domain": "locked", "config": {"name": "\ud800"}, "credentials":'
        rb' {"password": "x"}}'
    )
    answer = user.post(
        "/v1/user-integrations", content=config, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
