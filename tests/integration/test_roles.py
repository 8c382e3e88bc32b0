"""A viewer sees that the engine runs, and no content: over REST and on all pages."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass

import pytest
from support.indexing import index_all

from core import TaskOutput
from core.dashboard.app import PAGES
from core.rest.app import build
from core.scopes import SCOPES_OF_ROLES, Role

MARKS = (
    "mark-item", "mark-text", "mark-config", "mark-status", "mark-notice", "mark-run-error",
    "mark-skip", "mark-task", "mark-reason", "mark-state", "mark-held", "mark-breaker",
    "mark-limit",
)  # fmt: skip
"""Words in all columns that may quote the source."""

WITHOUT_TOKEN = ("/healthz", "/readyz", "/v1/hints/{integration_domain}")
PATHS = ("/accounts", "/runs", "/parked", "/deletions", "/content", "/users", "/audit", "/")


@dataclass
class Lived:
    """The values for the parameters of all routes."""

    values: dict[str, object]


@pytest.fixture
def lived(desk) -> Lived:
    """Connect two accounts with marked rows of every kind: one runs, and one is in error."""
    conn = desk.conn
    account = desk.account("first", config={"query": "mark-config"})
    stopped = desk.account("second", config={"query": "mark-config"})
    item = TaskOutput(
        "mark-item", "mark-text", name="mark-item", metadata={"thread_id": "mark-item"}
    )
    desk.keep(account, item)
    index_all(conn)
    run, ended = desk.run(account), desk.run(stopped)
    conn.execute(
        "UPDATE user_integration SET notice = 'mark-notice', limit_group = 'g' WHERE id = %s",
        (account,),
    )
    conn.execute(
        "UPDATE user_integration SET sync_status = 'error', status_reason = 'credentials',"
        " status_detail = 'mark-status', stopped_at = now() WHERE id = %s",
        (stopped,),
    )
    conn.execute(
        "UPDATE sync_task SET payload = '{\"path\": \"mark-task\"}', reason = 'mark-reason',"
        ' errors = \'[{"at": "2026-01-01T00:00:00Z", "error": "mark-reason"}]\','
        " state = 'parked', finished_at = now()"
    )
    conn.execute(
        "UPDATE sync_run SET error = 'mark-run-error', state = 'partial', finished_at = now(),"
        " skipped = '{\"mark-skip\": 2}' WHERE id = %s",
        (ended,),
    )
    conn.execute("UPDATE sync_run SET error = 'mark-run-error' WHERE id = %s", (run,))
    conn.execute(
        "INSERT INTO sync_state VALUES (%s, 'p', %s, 1, 1)", (account, json.dumps("mark-state"))
    )
    conn.execute(
        "INSERT INTO breaker (user_integration_id, limit_name, integration_domain, failures,"
        " failed_tasks, reason, first_failed_at, opened_at, probe_at, failed_probes)"
        " VALUES (%s, '', 'shop', 5, '{}', 'mark-breaker', now(), now(), now(), 1)",
        (account,),
    )
    conn.execute(
        "INSERT INTO limit_block (key, until, reason)"
        " VALUES ('integration/shop/calls', now() + interval '1 hour', 'mark-limit')"
    )
    held = desk.hold(account, run, "mark-held", parent="mark-held")
    content = desk.value("SELECT id FROM user_integration_content")
    task = desk.value("SELECT max(id) FROM sync_task")
    return Lived(
        {
            "user_integration_id": account,
            "stopped": stopped,
            "run_id": run,
            "ended": ended,
            "task_id": task,
            "held_deletion_id": held,
            "content_id": content,
            "content": content,
            "user_id": "u",
            "integration_domain": "shop",
            "domain": "locked",
            "organization_id": account,
            "subscription_id": account,
            "limit_name": "calls",
        }
    )


def variants(path, values):
    """Yield the path with the values of its parameters, for both accounts and both runs."""
    for account, run in (
        (values["user_integration_id"], values["run_id"]),
        (values["stopped"], values["ended"]),
    ):
        yield path.format(**values | {"user_integration_id": account, "run_id": run})
        if "{" not in path:
            return


def over_rest(client, backend, lived):
    """Send all requests that read, with all switches; return the texts of the answers."""
    for path, methods in build(backend).openapi()["paths"].items():
        if "get" not in methods or path in WITHOUT_TOKEN:
            continue
        params = {
            name: "true"
            for name in ("totals", "deleted")
            if name in {each["name"] for each in methods["get"].get("parameters", ())}
        }
        for filled in variants(path, lived.values):
            yield path, client.get(filled, params=params)


def on_pages(browser, lived):
    """Open all pages; yield their answers."""
    for route in itertools.chain.from_iterable(module.router.routes for module in PAGES):
        if "GET" not in route.methods or route.path.startswith(("/sign-in", "/v1/")):
            continue
        for filled in variants(route.path, lived.values):
            yield route.path, browser.get(filled)


def found(answers):
    """Return the marks in the answers, each with the paths that show it."""
    shown: dict[str, set[str]] = {}
    for path, answer in answers:
        for mark in re.findall("mark-[a-z-]+[a-z]", answer.text):
            shown.setdefault(mark, set()).add(path)
    return shown


def test_a_viewer_reads_no_content_over_rest(api, lived) -> None:
    viewer = api.client(api.token(scopes=SCOPES_OF_ROLES[Role.VIEWER]))
    answers = list(over_rest(viewer, api.backend, lived))
    assert found(answers) == {}
    seen = {path for path, answer in answers if answer.status_code == 200}
    assert {"/v1/user-integrations", "/v1/user-integrations/{user_integration_id}"} <= seen
    assert {"/v1/runs", "/v1/runs/{run_id}", "/v1/outages", "/metrics"} <= seen
    account = viewer.get(f"/v1/user-integrations/{lived.values['stopped']}").json()
    assert (account["config"], account["status_detail"]) == (None, None)
    assert (account["sync_status"], account["name"]) == ("error", "second")


def test_a_viewer_reads_no_content_on_a_page(dashboard, lived) -> None:
    viewer = dashboard.sign_in(scopes=SCOPES_OF_ROLES[Role.VIEWER])
    answers = list(on_pages(viewer, lived))
    assert found(answers) == {}
    seen = {path for path, answer in answers if answer.status_code == 200}
    assert {"/accounts", "/accounts/{user_integration_id}", "/runs", "/", "/users"} <= seen
    assert "/accounts/{user_integration_id}/timeline" in seen


def test_an_admin_reads_everything(api, dashboard, lived) -> None:
    """Without this, the tests above would prove nothing."""
    admin = api.client(api.token(scopes=SCOPES_OF_ROLES[Role.ADMIN]))
    over = found(over_rest(admin, api.backend, lived))
    on = found(on_pages(dashboard.sign_in(scopes=SCOPES_OF_ROLES[Role.ADMIN]), lived))
    assert set(MARKS) <= set(over) | set(on)
    for shown in (over, on):
        assert {"mark-config", "mark-status", "mark-run-error", "mark-notice"} <= set(shown)
        assert {"mark-breaker", "mark-limit", "mark-held", "mark-text"} <= set(shown)


def test_an_operator_reads_names_and_no_content(api, dashboard, lived) -> None:
    scopes = SCOPES_OF_ROLES[Role.OPERATOR]
    over = found(over_rest(api.client(api.token(scopes=scopes)), api.backend, lived))
    on = found(on_pages(dashboard.sign_in(scopes=scopes), lived))
    for shown in (over, on):
        assert "mark-text" not in shown
        assert {"mark-config", "mark-task", "mark-held"} <= set(shown)
