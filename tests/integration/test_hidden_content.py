"""No route, page or command shows anything of an account that is being erased.

The account itself is listed, so that a person can restore it.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from support.forks import polling
from support.indexing import index_all

from core import TaskOutput
from core.cli.app import command
from core.dashboard.app import PAGES
from core.rest.app import build
from core.scopes import ALL
from core.service.accounts import disconnect
from core.settings import Settings

MARK = "what-nobody-may-see"
WORD = "sighted"
"""A word that a search finds. The search is repeated in answers, the mark is not."""

SQL = re.compile(r"\b(?:FROM|JOIN)\s+(user_integration_content|held_deletion|sync_state)\b")


@pytest.fixture
def account(desk: Any) -> UUID:
    """Connect an account of `ann` whose rows of every kind have the mark."""
    account: UUID = desk.account("of ann", user_id="ann")
    thread = {"x": MARK, "thread_id": MARK}
    desk.keep(
        account,
        TaskOutput(f"{MARK}-1", f"{WORD} {MARK}", name=MARK, kind="message", metadata=thread),
        TaskOutput(f"{MARK}-2", f"<p>{WORD} {MARK}", parent=f"{MARK}-1", content_type="text/html"),
        TaskOutput(f"{MARK}-3", f"{WORD} {MARK}", kind=MARK),
    )
    index_all(desk.conn)
    run = desk.run(account)
    desk.conn.execute(
        "UPDATE sync_task SET reason = %(mark)s, state = 'parked', payload = %(json)s,"
        " errors = jsonb_build_array(jsonb_build_object('error', %(mark)s::text))"
        " WHERE run_id = %(run)s",
        {"mark": MARK, "json": json.dumps({"path": MARK}), "run": run},
    )
    desk.conn.execute(
        "INSERT INTO sync_state VALUES (%s, 'p', %s, 1, 1), (%s, 'notice', %s, 1, 1)",
        (account, json.dumps(MARK), account, json.dumps({"text": MARK})),
    )
    desk.hold(account, run, f"{MARK}-1", parent=f"{MARK}-1")
    desk.conn.execute("UPDATE user_integration SET integration_domain = 'locked'")
    return account


@pytest.fixture
def ids(desk: Any, account: UUID) -> dict[str, Any]:
    """Return the values for the parameters of all routes."""
    return {
        "user_integration_id": str(account),
        "run_id": str(desk.value("SELECT id FROM sync_run ORDER BY started_at DESC LIMIT 1")),
        "task_id": desk.value("SELECT max(id) FROM sync_task"),
        "content_id": desk.value("SELECT min(id) FROM user_integration_content"),
        "held_deletion_id": desk.value("SELECT max(id) FROM held_deletion"),
        "user_id": "ann",
        "token_id": "00000000-0000-0000-0000-000000000000",
        "organization_id": "00000000-0000-0000-0000-000000000000",
        "subscription_id": "00000000-0000-0000-0000-000000000000",
        "integration_domain": "locked",
        "domain": "locked",
    }


def hide(desk: Any, account: UUID) -> None:
    assert not disconnect.hide(desk.conn, account, erases_account=True, now=False).has_begun


def shows(text: str) -> bool:
    """Return True if a text has the mark, also in a cursor."""
    words = re.findall(r"[A-Za-z0-9_-]{24,}", text)
    decoded = (base64.urlsafe_b64decode(word[: len(word) // 4 * 4]) for word in words)
    return MARK in text or any(MARK.encode() in one for one in decoded)


# REST
# --------------------------------------------------------------------------------------------------


def gets(document: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (operation, path, names of query parameters) of every route that reads."""
    for path, methods in sorted(document["paths"].items()):
        if (operation := methods.get("get")) is not None:
            parameters = operation.get("parameters", ())
            yield (
                operation["operationId"],
                path,
                [one["name"] for one in parameters if one["in"] == "query"],
            )


VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"q": WORD},
    {"q": f"from:{MARK}"},
    {"deleted": "true"},
    {"kind": "message"},
    {"as": "html"},
    {"include": "content"},
    {"totals": "true"},
    {"format": "csv"},
    {"state": "parked"},
    {"limit": "1"},
)
"""Query parameters. A route gets those that it has."""

REVEALING = {
    "list_content", "get_content", "get_thread", "get_raw_content", "read_changes",
    "export_content", "list_held_deletions", "get_held_deletion", "list_tasks", "get_task",
    "get_state",
}  # fmt: skip
"""Routes that must show the mark before the account is erased, so that the walk proves something.
"""


def walk_rest(client: Any, document: Mapping[str, Any], ids: Mapping[str, Any]) -> set[str]:
    """Return the routes that show the mark."""
    found = set()
    for operation, path, names in gets(document):
        for variant in VARIANTS:
            if not variant.keys() <= set(names):
                continue
            for filtered in (True, False):
                own = ("user_integration_id", "run_id") if filtered else ()
                params = {name: ids[name] for name in own if name in names} | variant
                answer = client.get(path.format(**ids), params=params)
                if shows(answer.text):
                    found.add(operation)
    return found


@pytest.mark.parametrize("user", [None, "ann"], ids=["operator", "owner"])
def test_no_route_shows_hidden_content(api: Any, desk: Any, account: UUID, ids: Any, user) -> None:
    client, document = api.client(api.token(user, scopes=ALL)), build(api.backend).openapi()
    before = walk_rest(client, document, ids)
    known = {operation for operation, *_ in gets(document)}
    assert REVEALING & known <= before
    assert len(REVEALING & known) >= 8, known
    hide(desk, account)
    assert walk_rest(client, document, ids) == set()
    for path in ("/v1/runs/{run_id}", "/v1/tasks/{task_id}", "/v1/runs/{run_id}/tasks"):
        assert client.get(path.format(**ids)).status_code == 404, path


def test_figures_of_hidden_content_are_zero(api: Any, desk: Any, account: UUID) -> None:
    place = f"/v1/user-integrations/{account}"
    hide(desk, account)
    row = api.admin.get(place, params={"include": "totals"})
    row = row if row.status_code == 200 else api.admin.get(place, params={"totals": "true"})
    assert row.json()["sync_status"] == "erasing"
    assert row.json()["erasing_since"] is not None
    assert row.json()["totals"]["items"] == 0
    assert api.admin.get(f"{place}/runs").json()["items"] == []
    assert api.admin.get("/v1/changes").json()["deletions_held"] == 0


def test_a_cursor_names_no_hidden_item(api: Any, desk: Any, account: UUID, monkeypatch) -> None:
    """A page ends with the last item that it compares, which may be hidden."""
    monkeypatch.setattr("core.service.pagination.MAX_SCANNED_ROWS", 2)
    others = [desk.account(f"other {number}", user_id="ann") for number in range(4)]
    for other in others:
        desk.keep(other, TaskOutput("1", "x"))

    def pages(client: Any) -> tuple[str, set[str]]:
        text, found, after = "", set(), {}
        while True:
            params = {"kind": "message", "limit": 1, "deleted": "true"} | after
            page = client.get("/v1/user-integration-content", params=params)
            text += page.text
            found |= {item["user_integration_id"] for item in page.json()["items"]}
            if page.json()["cursor"] is None:
                return text, found
            after = {"after": page.json()["cursor"]}

    desk.conn.execute("UPDATE user_integration_content SET kind = 'message', deleted_at = now()")
    for client in (api.admin, api.user("ann")):
        assert shows(pages(client)[0])
    hide(desk, account)
    for client in (api.admin, api.user("ann")):
        text, found = pages(client)
        assert not shows(text)
        assert found == {str(other) for other in others}


def test_a_repeated_request_shows_nothing_hidden_or_erased(
    api: Any, desk: Any, account: UUID, ids: Any, backend: Any
) -> None:
    client = api.client(api.token(scopes=ALL))

    def act(path: str, key: str, method: str = "POST", **more: Any) -> Any:
        return client.request(method, path, headers={"Idempotency-Key": key}, **more)

    tried = {
        "task": (f"/v1/tasks/{ids['task_id']}/discard", {}),
        "run": (f"/v1/runs/{ids['run_id']}/cancel", {}),
        "deletion": (f"/v1/held-deletions/{ids['held_deletion_id']}/refuse", {}),
        "sync": (f"/v1/user-integrations/{account}/sync", {}),
        "account": (
            f"/v1/user-integrations/{account}",
            {"method": "PATCH", "json": {"name": MARK}},
        ),
        "check": (f"/v1/user-integrations/{account}/check", {}),
    }
    sealed = backend.vault.seal_json({"password": "fine"})
    desk.conn.execute(
        "UPDATE user_integration SET credentials = %s, identity = 'me', config = '{}'", (sealed,)
    )
    for name, (path, more) in tried.items():
        assert act(path, name, **more).status_code in (200, 201), name
    for name, (path, more) in tried.items():
        assert act(path, name, **more).headers["idempotency-replayed"] == "true", name

    def replayed() -> dict[str, int]:
        answers = {name: act(path, name, **more) for name, (path, more) in tried.items()}
        return {name: answer.status_code for name, answer in answers.items()}

    hide(desk, account)
    hidden = dict.fromkeys(("task", "run", "deletion", "sync"), 404)
    assert replayed() == hidden | {"account": 200, "check": 200}, "the account itself is shown"
    place = f"/v1/user-integrations/{account}?content=delete&now=true"
    assert act(place, "gone", "DELETE").status_code == 204
    assert act(place, "gone", "DELETE").status_code == 204
    assert replayed() == dict.fromkeys(tried, 404)
    assert MARK not in str(desk.rows("SELECT answer, location FROM idempotency_key"))


def test_a_repeated_request_does_not_connect_an_erased_account_again(api: Any, desk: Any) -> None:
    client = api.client(api.token(scopes=ALL))
    new = {"integration_domain": "locked", "user_id": "ann", "credentials": {"password": "fine"}}

    def connect() -> Any:
        headers = {"Idempotency-Key": "k"}
        return client.post("/v1/user-integrations", json=new, headers=headers)

    place = connect().headers["location"]
    assert client.delete(f"{place}?content=delete&now=true").status_code == 204
    assert (connect().status_code, connect().json()["code"]) == (404, "account-not-found")
    assert desk.value("SELECT count(*) FROM user_integration") == 0


def test_nobody_acts_on_hidden_work(api: Any, desk: Any, account: UUID, ids: Any) -> None:
    hide(desk, account)
    for path in (
        "/v1/tasks/{task_id}/retry",
        "/v1/held-deletions/{held_deletion_id}/accept",
        "/v1/runs/{run_id}/cancel",
    ):
        assert api.admin.post(path.format(**ids)).status_code == 404, path
    for action in ("sync", "resume", "pause", "resync"):
        answer = api.admin.post(f"/v1/user-integrations/{account}/{action}")
        assert (answer.status_code, answer.json()["code"]) == (409, "account-erasing"), action


# Dashboard
# --------------------------------------------------------------------------------------------------


def walk_pages(browser: Any, ids: Mapping[str, Any]) -> set[str]:
    """Return the pages that show the mark."""
    found = set()
    for route in (route for module in PAGES for route in module.router.routes):
        if "GET" not in route.methods:
            continue
        for params in (
            {},
            {"q": WORD},
            {"account": ids["user_integration_id"]},
            {"deleted": "also"},
            {"run": ids["run_id"]},
        ):
            if shows(browser.get(route.path.format(**ids), **params).text):
                found.add(route.path)
    return found


@pytest.mark.parametrize("user", [None, "ann"], ids=["operator", "owner"])
def test_no_page_shows_hidden_content(
    dashboard: Any, desk: Any, account: UUID, ids: Any, user
) -> None:
    browser = dashboard.sign_in(user, scopes=ALL)
    before = walk_pages(browser, ids)
    assert {
        "/content", "/content/{content_id}", "/content/{content_id}/thread",
        "/content/{content_id}/raw", "/content/{content_id}/preview",
        "/accounts/{user_integration_id}", "/parked", "/tasks/{task_id}", "/deletions",
    } <= before  # fmt: skip
    hide(desk, account)
    assert walk_pages(browser, ids) == set()
    page = browser.get(f"/accounts/{account}").text
    assert "is hidden since" in page
    assert "State of the copy" not in page


# Command line
# --------------------------------------------------------------------------------------------------

ACTS = {
    "up", "demo", "worker", "scheduler", "serve", "connect", "check", "pause", "resume",
    "reconnect", "config", "disconnect", "sync", "resync", "reread", "migrate", "psql", "drain",
    "new", "dry-run", "organizations connect", "organizations sync", "organizations disconnect",
    "runs cancel", "tasks retry", "tasks discard", "deletions accept", "deletions refuse",
    "keys new", "keys rotate", "limits set", "limits reset", "tokens create", "tokens revoke",
    "sessions end", "integrations pause", "integrations resume", "env", "keys", "completion",
    "subscriptions add", "subscriptions pause", "subscriptions resume", "subscriptions remove",
    "subscriptions test", "subscriptions replay",
}  # fmt: skip
"""Commands that do not read for people."""


def reads(ids: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Return the arguments with which each command reads."""
    account = ["--account", ids["user_integration_id"]]
    content = str(ids["content_id"])
    return {
        "accounts": [[]],
        "accounts show": [[ids["user_integration_id"]], [ids["user_integration_id"], "--json"]],
        "audit": [[]],
        "content": [[], account, ["--search", WORD], ["--deleted"], [*account, "--json"]],
        "content show": [[content], [content, "--raw"]],
        "deletions": [[], account],
        "deletions show": [[str(ids["held_deletion_id"])]],
        "doctor": [[]],
        "export": [[], account],
        "integrations": [[]],
        "limits": [[], ["--json"]],
        "integrations show": [["hello-world"]],
        "organizations": [[]],
        "organizations show": [["none"]],
        "runs": [[], account],
        "subscriptions": [[]],
        "subscriptions show": [["none"]],
        "runs show": [[ids["run_id"]]],
        "tasks": [[], account, ["--run", ids["run_id"]]],
        "tasks show": [[str(ids["task_id"])]],
        "tokens": [[]],
        "tokens list": [[]],
        "sessions": [[]],
        "sessions list": [[]],
        "users": [[], ["ann"], ["--quotas"]],
    }


def commands(group: Any, name: str = "") -> Iterator[str]:
    """Yield the names of all commands."""
    if name:
        yield name
    for word, inner in getattr(group, "commands", {}).items():
        yield from commands(inner, f"{name} {word}".strip())


def walk_commands(env: Mapping[str, str], ids: Mapping[str, Any], folder: Path) -> set[str]:
    """Return the commands that show the mark."""
    return {
        name
        for name, variants in reads(ids).items()
        for arguments in variants
        if shows("".join(polling([*name.split(), *arguments], env, folder)[1:]))
    }


@pytest.mark.timeout(300)
def test_no_command_shows_hidden_content(
    settings: Settings, secret_key: str, desk: Any, account: UUID, ids: Any
) -> None:
    assert settings.database_url is not None
    assert settings.redis_url is not None
    env = os.environ | {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "POLLING_REDIS_NAMESPACE": settings.redis_namespace,
        "POLLING_SECRET_KEYS": secret_key,
        "POLLING_HOME": str(settings.home),
    }
    assert {*commands(command())} == ACTS | {*reads(ids)}
    assert {
        "content", "content show", "deletions", "deletions show", "export", "tasks", "tasks show",
        "accounts show",
    } <= walk_commands(env, ids, settings.home)  # fmt: skip
    hide(desk, account)
    assert walk_commands(env, ids, settings.home) == set()


# Statements
# --------------------------------------------------------------------------------------------------


def test_statements_for_people_have_the_condition() -> None:
    """Each module of the service that reads these tables for people uses the condition."""
    root = Path(__file__).parents[2]
    readers = {
        path.relative_to(root).as_posix()
        for path in root.glob("core/service/**/*.py")
        if SQL.search(path.read_text("utf-8"))
    }
    conditional = {
        name
        for name in readers
        if "core.content.visible import" in (root / name).read_text("utf-8")
    }
    assert readers - conditional == {
        "core/service/accounts/erase.py",  # blobs of an erased account
        "core/service/content/search_index.py",  # no reader sees it
    }
