"""Access to the dashboard: sessions, requests from other sites, and rows of other users."""

from __future__ import annotations

import itertools
import json
import re
from uuid import uuid4

import pytest
from support.signed_in import signed_in

from core import TaskOutput
from core.dashboard.app import PAGES
from core.scopes import ALL
from core.service import tokens
from core.service.pagination import PagedQuery

MARK = "only-the-owner-may-read-this"
OPEN = {
    *("/sign-in", "/sign-in/oidc", "/sign-in/oidc/callback"),
    *("/v1/oauth/callback", "/oauth/confirm", "/oauth/cancel"),
}
"""Pages for people without a session."""

FIELDS = {
    "name": MARK,
    "interval": "7",
    "part": "config",
    "user": "owner",
    "token": "x",
    "task": "1",
    "ids": "1",
}


def routes():
    """Yield (method, path) of every page and every button."""
    for route in itertools.chain.from_iterable(module.router.routes for module in PAGES):
        yield from ((method, route.path) for method in sorted(route.methods - {"HEAD"}))


@pytest.fixture
def owned(dashboard, desk):
    """Connect an account of the user `owner` with rows of every kind.

    The result contains values for the parameters of all routes.
    """
    account = desk.account(MARK, user_id="owner", config={"name": MARK})
    desk.keep(account, TaskOutput("1", MARK, name=MARK, metadata={"x": MARK}))
    run = desk.run(account)
    desk.conn.execute(
        "UPDATE sync_task SET reason = %s, state = 'parked' WHERE run_id = %s", (MARK, run)
    )
    desk.conn.execute(
        "INSERT INTO sync_state VALUES (%s, 'p', %s, 1, 1)", (account, json.dumps(MARK))
    )
    # This integration takes credentials.
    desk.conn.execute("UPDATE user_integration SET integration_domain = 'locked'")
    content = desk.value("SELECT id FROM user_integration_content")
    organization = uuid4()
    desk.conn.execute(
        "INSERT INTO organization (id, user_id, integration_domain, name, config, credentials)"
        " VALUES (%s, 'owner', 'locked', %s, '{}', 'sealed')",
        (organization, MARK),
    )
    subscription = desk.value(
        "INSERT INTO subscription (id, name, kind, channel, user_id, address, sealed)"
        " VALUES (gen_random_uuid(), %s, 'content', 'webhook', 'owner', 'x', 'sealed')"
        " RETURNING id",
        MARK,
    )
    return {
        "subscription_id": str(subscription),
        "organization_id": str(organization),
        "account": str(account),
        "user_integration_id": str(account),
        "run": str(run),
        "run_id": str(run),
        "held_deletion_id": desk.hold(account, run, "1", parent=MARK),
        "token": tokens.create(desk.conn, user_id="owner", name=MARK).id,
        "task": desk.value("SELECT max(id) FROM sync_task"),
        "task_id": desk.value("SELECT max(id) FROM sync_task"),
        "content": content,
        "content_id": content,
        "domain": "locked",
    }


# Signing in
# --------------------------------------------------------------------------------------------------


def test_a_wrong_token_starts_no_session(dashboard) -> None:
    for token in (
        "",
        "polling_" + "x" * 43,
        dashboard.token(days=-1),
        "\ud800".encode("utf-8", "replace").decode(),
    ):
        answer = dashboard.stranger().send("/sign-in", {"token": token})
        assert (answer.status_code, answer.headers.get("set-cookie")) == (401, None)
        assert "unknown, expired or revoked" in answer.text
        assert not token or token not in answer.text


@pytest.mark.parametrize(
    ("public", "secure"), [(None, False), ("https://polling.example.org", True)]
)
def test_the_session_cookie_belongs_to_this_host_over_https(
    dashboard, monkeypatch, public, secure
) -> None:
    monkeypatch.setattr(dashboard.backend.settings, "public_url", public)
    answer = dashboard.stranger().send("/sign-in", {"token": dashboard.token()})
    flags = {
        part.strip().lower().partition("=")[0]
        for part in answer.headers["set-cookie"].split(";")[1:]
    }
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    name = answer.headers["set-cookie"].partition("=")[0]
    assert name == ("__Host-polling_session" if secure else "polling_session")
    assert "path=/;" in answer.headers["set-cookie"].lower()
    assert flags == {"httponly", "samesite", "path", "max-age"} | ({"secure"} if secure else set())
    assert "samesite=lax" in answer.headers["set-cookie"].lower()


def test_signing_out_ends_the_session(dashboard) -> None:
    browser = dashboard.sign_in()
    assert browser.send("/sign-out").status_code == 403
    answer = browser.post("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert browser.get("/accounts").headers["location"] == "/sign-in?next=%2Faccounts"


def test_a_token_that_is_revoked_ends_all_its_sessions(dashboard, desk) -> None:
    browser = dashboard.sign_in()
    csrf = browser.csrf
    tokens.revoke(desk.conn, desk.value("SELECT id FROM api_token"))
    assert browser.get("/accounts").status_code == 303
    assert browser.send("/sign-out", {"csrf": csrf}).status_code == 401


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "/\t/evil.example",
        "evil",
        "javascript:alert(1)",
        "",
    ],
)
def test_signing_in_redirects_to_pages_of_this_site_only(dashboard, wanted) -> None:
    stranger = dashboard.stranger()
    answer = stranger.send("/sign-in", {"token": dashboard.token(), "next": wanted})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert 'name="next" value="/"' in stranger.get("/sign-in", next=wanted).text


def test_signing_in_redirects_to_the_requested_page(dashboard) -> None:
    wanted = dashboard.stranger().get("/accounts?status=error").headers["location"]
    assert wanted == "/sign-in?next=%2Faccounts%3Fstatus%3Derror"
    page = dashboard.stranger().get(wanted).text
    assert 'value="/accounts?status=error"' in page


# Other sites
# --------------------------------------------------------------------------------------------------


def test_forms_from_other_sites_are_refused(dashboard, owned, desk) -> None:
    browser, other = dashboard.sign_in("owner"), dashboard.sign_in("owner")
    place, right = f"/accounts/{owned['account']}/pause", browser.csrf
    for fields in ({}, {"csrf": ""}, {"csrf": right[:-1]}, {"csrf": other.csrf}, {"csrf": "ü"}):
        assert browser.send(place, fields).status_code == 403, fields
    for site in ("cross-site", "same-site"):
        assert browser.send(place, {"csrf": right}, **{"Sec-Fetch-Site": site}).status_code == 403
        assert (
            dashboard.stranger()
            .send("/sign-in", {"token": "x"}, **{"Sec-Fetch-Site": site})
            .status_code
            == 403
        )
    assert desk.value("SELECT sync_status FROM user_integration") == "active"
    assert (
        browser.send(place, {"csrf": right}, **{"Sec-Fetch-Site": "same-origin"}).status_code == 303
    )
    assert desk.value("SELECT sync_status FROM user_integration") == "paused"


def test_every_page_forbids_scripts_and_frames(dashboard, owned) -> None:
    browser = dashboard.sign_in("owner")
    for path in (
        "/accounts",
        f"/accounts/{owned['account']}",
        "/sign-in",
        "/nowhere",
        "/static/style.css",
    ):
        headers = browser.get(path).headers
        assert (
            "default-src 'none'; script-src 'self'; style-src 'self'"
            in headers["content-security-policy"]
        )
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    page = browser.get(f"/accounts/{owned['account']}").text
    assert not re.search(r"<script(?! src=)|\sstyle=|\son[a-z]+=", page)


# Other people
# --------------------------------------------------------------------------------------------------


def test_without_a_session_no_page_is_shown_and_no_button_works(dashboard, owned) -> None:
    stranger, seen = dashboard.stranger(), 0
    for method, path in routes():
        if path in OPEN:
            continue
        filled = path.format(**owned)
        if method == "GET":
            answer = stranger.get(filled)
            assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (
                303,
                "/sign-in",
            ), path
            assert (
                stranger.client.get(filled, headers={"Accept": "text/event-stream"}).status_code
                == 401
            ), path
        else:
            assert stranger.send(filled, FIELDS).status_code == 401, path
        seen += 1
    assert seen > 20


def test_no_page_shows_a_user_the_rows_of_another(dashboard, owned, desk) -> None:
    """Request all pages and press all buttons with the ids of another user's rows."""
    state = """
    SELECT id, name, user_id, sync_status, version, poll_interval_minutes, config
    FROM user_integration
    """
    work = """
    SELECT id, state, retried_as FROM sync_task UNION ALL SELECT 0, state, NULL FROM sync_run
    ORDER BY 1
    """
    before, tasks = desk.rows(state), desk.rows(work)
    foreign, seen = dashboard.sign_in("foreign", scopes=ALL), 0
    csrf = {"csrf": foreign.csrf}
    for (method, path), filtered in itertools.product(routes(), (True, False)):
        if path in OPEN | {"/sign-out", "/sign-out-everywhere"}:
            continue
        filled = path.format(**owned)
        params = (
            {"account": owned["account"], "user": "owner", "run": owned["run"], "q": MARK}
            if filtered
            else {}
        )
        rows = {name: owned[name] for name in ("task", "account")} if filtered else {}
        fields = FIELDS | csrf | rows
        answer = foreign.get(filled, **params) if method == "GET" else foreign.send(filled, fields)
        # The page may repeat the text that the user typed, in its own field.
        assert MARK not in answer.text.replace(f'value="{MARK}"', ""), (method, path)
        if set(re.findall(r"{([a-z_]+)}", path)) - {"domain"}:
            assert answer.status_code in (403, 404), (method, path, answer.status_code)
        else:
            assert answer.status_code < 500, (method, path, answer.status_code)
        seen += 1
    assert seen >= 40
    assert desk.rows(state) == before
    assert desk.rows(work) == tasks


def test_the_owner_sees_the_rows_that_another_user_does_not(dashboard, owned) -> None:
    """Without this, the test above would prove nothing."""
    owner = dashboard.sign_in("owner")
    for path in (
        "/accounts",
        "/accounts/{account}",
        "/accounts/{account}/settings",
        "/accounts/{account}/credentials",
    ):
        answer = owner.get(path.format(**owned))
        assert (answer.status_code, MARK in answer.text) == (200, True), path


def test_rows_of_other_users_are_answered_like_missing_ones(dashboard, owned) -> None:
    foreign = dashboard.sign_in("foreign")
    other, nowhere = owned["account"], "00000000-0000-4000-8000-000000000000"
    for path in ("/accounts/{}", "/accounts/{}/settings"):
        there, not_there = foreign.get(path.format(other)), foreign.get(path.format(nowhere))
        assert (there.status_code, there.text.replace(other, nowhere)) == (404, not_there.text)


def test_a_bug_in_sql_is_a_page_and_not_a_busy_database(dashboard, desk, caplog) -> None:
    who = signed_in(dashboard, "u")
    run = desk.run(desk.account("A shop", user_id="u"))
    desk.conn.execute("ALTER TABLE sync_run RENAME COLUMN trigger TO renamed")
    page = who.get(f"/runs/{run}", 500)
    assert "retry-after" not in page.headers
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Something went wrong" in page.text
    assert "does not answer" not in page.text
    assert "UndefinedColumn" in caplog.text


def test_an_unexpected_error_is_a_page_that_reveals_nothing(
    dashboard, desk, monkeypatch, caplog
) -> None:
    who = signed_in(dashboard, "u")
    run = desk.run(desk.account("A shop", user_id="u"))

    def broken(*arguments: object, **more: object) -> None:
        raise RuntimeError("a-secret")

    monkeypatch.setattr(PagedQuery, "one", broken)
    page = who.get(f"/runs/{run}", 500)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Something went wrong" in page.text
    assert page.headers["x-frame-options"] == "DENY"
    assert "a-secret" not in page.text + caplog.text
    assert "RuntimeError" in caplog.text
