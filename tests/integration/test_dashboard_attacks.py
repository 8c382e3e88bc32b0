"""Attacks on the dashboard: without a token, with the attacker's token, and from another site."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from uuid import uuid4

import psycopg
import pytest
from support.hostile_texts import fill
from support.waiting import until

from core.dashboard import live as live_parts
from core.dashboard.live import MAX_STREAMS, Live
from core.errors import InvalidInput
from core.service.query_timeout import MAX_QUERIES_PER_USER

EVENTS = {"Accept": "text/event-stream"}


def test_the_stream_of_a_live_part_that_fails_ends(dashboard) -> None:
    browser = dashboard.sign_in("ann")
    for number in range(3):
        with browser.client.stream(
            "GET", "/accounts", params={"after": f"x{number}"}, headers=EVENTS
        ) as answer:
            assert "event: end" in "".join(answer.iter_text())
    with browser.client.stream("GET", f"/accounts/{uuid4()}", headers=EVENTS) as answer:
        assert "event: end" in "".join(answer.iter_text())


def test_the_cache_keeps_no_part_without_a_viewer() -> None:
    """The key comes from the address, and may be long."""

    def fails() -> str:
        raise InvalidInput("cursor-invalid")

    async def looks() -> int:
        live, pulse = Live(), SimpleNamespace(ended=False)
        for number, render in enumerate((fails, lambda: "page")):
            stream = live.stream((str(number),), uuid4(), render, lambda: True, pulse)
            assert [await anext(stream), await anext(stream)][1].startswith(
                ("event: end", "event: live")
            )
            await stream.aclose()
        return len(live._cache)

    assert asyncio.run(looks()) == 0


def test_the_number_of_streams_of_one_token_is_bounded() -> None:
    async def opened() -> tuple[list[str], str]:
        live, pulse, who = Live(), SimpleNamespace(ended=False), uuid4()
        streams = [
            live.stream((str(n),), who, lambda: "page", lambda: True, pulse)
            for n in range(MAX_STREAMS)
        ]
        for stream in streams:
            await anext(stream)
        refused = [
            text async for text in live.stream(("more",), who, lambda: "page", lambda: True, pulse)
        ]
        other = live.stream(("more",), uuid4(), lambda: "page", lambda: True, pulse)
        await anext(other)
        shown = await anext(other)
        for stream in (*streams, other):
            await stream.aclose()
        assert live._streams == {}
        return refused, shown

    refused, shown = asyncio.run(opened())
    assert refused == ["retry: 30000\n\n"]
    assert shown.startswith("event: live")


def test_the_number_of_all_streams_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(live_parts, "MAX_STREAMS_IN_ALL", 3)

    async def firsts() -> list[str]:
        live, pulse = Live(), SimpleNamespace(ended=False)
        streams = [
            live.stream(("page",), user, lambda: "page", lambda: True, pulse) for user in "abcd"
        ]
        seen = [await anext(stream) for stream in streams]
        for stream in streams:
            await stream.aclose()
        return seen

    assert asyncio.run(firsts()) == ["retry: 3000\n\n"] * 3 + ["retry: 30000\n\n"]


def test_streams_of_all_tokens_of_a_user_count_together(dashboard, monkeypatch) -> None:
    monkeypatch.setattr(live_parts, "MAX_STREAMS", 2)
    seen, open_streams = [], []
    with ExitStack() as stack:
        for user in ("mallory", "mallory", "mallory", "ann"):
            browser = dashboard.sign_in(user)
            answer = stack.enter_context(browser.client.stream("GET", "/runs", headers=EVENTS))
            open_streams.append(answer.iter_lines())
            seen.append(next(open_streams[-1]))
    assert seen == ["retry: 3000", "retry: 3000", "retry: 30000", "retry: 3000"]


@pytest.mark.parametrize(
    "path",
    [
        "/content?until=9999-12-31", "/static/%00", "/static/" + "x" * 5000,
        "/content?since=0001-01-01", "/accounts/%00", "/integrations/%00/connect",
        "/content/99999999999999999999", "/tasks/-1", "/content/1%00", "/runs?after=W05hTl0",
        "/accounts?after=WyJpbmZpbml0eSIsICJ4Il0", "/parked?account=%ED%A0%80",
        "/integrations/connected?domain=%00", "/static/..%2fapp.py", "/static/../../app.py",
        "/%2e%2e/%2e%2e/etc/passwd", "/runs?domain=%F0%9F%92%A9&domain=x",
    ],
)  # fmt: skip
def test_an_odd_address_causes_no_server_error(dashboard, path) -> None:
    answer = dashboard.sign_in().client.get(path)
    assert answer.status_code in (200, 404, 422), answer.status_code
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://evil.example:80"])
def test_another_site_cannot_sign_a_browser_in(dashboard, origin) -> None:
    """Over plain HTTP no browser sends Sec-Fetch-Site, but each sends Origin."""
    stranger = dashboard.stranger()
    answer = stranger.send("/sign-in", {"token": dashboard.token("mallory")}, Origin=origin)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_signing_in_works_under_every_name_of_this_site(dashboard) -> None:
    token = dashboard.token("ann")
    for headers in (
        {"Origin": dashboard.url},
        {"Host": "polling.example", "Origin": "https://polling.example"},
        {},
    ):
        answer = dashboard.stranger().send("/sign-in", {"token": token}, **headers)
        assert answer.status_code == 303, headers
        assert ("secure" in answer.headers["set-cookie"].lower()) == (
            "https" in headers.get("Origin", "")
        ), headers


@pytest.mark.parametrize("path", ["/accounts/", "/v1/runs/", "/v1/user-integrations/"])
def test_no_answer_redirects_to_the_host_header(dashboard, path) -> None:
    for client in (dashboard.stranger().client, dashboard.admin):
        answer = client.get(path, headers={"Host": "evil.example"})
        assert "evil.example" not in answer.headers.get("location", "")


@pytest.mark.parametrize(
    "kind", ["text/javascript", "application/x-javascript", "text/css", "text/html"]
)
def test_content_is_never_served_as_a_script_or_a_style(dashboard, conn, kind) -> None:
    """The policy of pages allows scripts and styles from this site, which also serves content."""
    id = fill(conn, "plain", "alert(1)").html
    conn.execute("UPDATE user_integration_content SET content_type = %s WHERE id = %s", (kind, id))
    answer = dashboard.sign_in().client.get(f"/content/{id}/raw")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_address_shows_or_changes_rows_of_another_user(dashboard, conn) -> None:
    filled = fill(conn, "plain", "plain words", user="ann")
    mallory = dashboard.sign_in("mallory")
    csrf, account, run, item = mallory.csrf, filled.account, filled.run, filled.html
    (task,) = conn.execute(
        "SELECT min(id) FROM sync_task WHERE user_integration_id = %s", (account,)
    ).fetchone()
    before = everything(conn)
    for path in (
        *filled.pages,
        *(f"/accounts/{account}{part}" for part in ("", "/settings", "/credentials")),
        *(f"/runs/{run}?parent={task}", f"/tasks/{task}"),
        *(f"/content/{item}{part}" for part in ("", "/raw", "/raw?inline=1", "/preview")),
        *(f"/{part}?account={account}" for part in ("runs", "parked", "content")),
        *("/accounts?user=ann", f"/integrations/connected?user_integration_id={account}"),
    ):
        assert "plain words" not in mallory.get(path).text, path
    for act in (
        "sync",
        "resync",
        "pause",
        "resume",
        "check",
        "disconnect",
        "erase",
        "settings",
        "credentials",
        "authorize",
    ):
        answer = mallory.send(f"/accounts/{account}/{act}", {"csrf": csrf, "name": "plain words"})
        assert answer.status_code == 404, act
    for path in (f"/runs/{run}/cancel", f"/tasks/{task}/retry", f"/tasks/{task}/discard"):
        assert mallory.send(path, {"csrf": csrf}).status_code == 404, path
    for act in ("resume", "pause", "sync"):
        mallory.send(f"/accounts/{act}-selected", {"csrf": csrf, "account": str(account)})
    for act in ("retry", "discard", "retry-all", "discard-all"):
        for query in (
            "",
            f"?account={account}",
            "?user=ann",
            "?error=other",
            f"?account={account}&account=",
        ):
            mallory.send(f"/parked/{act}{query}", {"csrf": csrf, "task": str(task), "user": "ann"})
    assert everything(conn) == before


def everything(conn) -> list[list[tuple]]:
    names = ("user_integration", "sync_run", "sync_task", "user_integration_content", "oauth_flow")
    return [
        conn.execute(f"SELECT to_jsonb(t) FROM {name} t ORDER BY 1").fetchall() for name in names
    ]


def test_many_searches_of_one_user_leave_room_for_others(dashboard, desk, database_url) -> None:
    desk.account("a", user_id="mallory")
    person, other = dashboard.user("mallory"), dashboard.user("ann")
    with psycopg.connect(database_url) as holder, ThreadPoolExecutor(45) as threads:
        # Each search now takes as long as it may.
        holder.execute("LOCK TABLE content_search IN ACCESS EXCLUSIVE MODE")
        waiting = """
        SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE '%content_search s %'
        """
        sent = [
            threads.submit(person.get, "/v1/user-integration-content", params={"q": "much"})
            for _ in range(45)
        ]
        with psycopg.connect(database_url, autocommit=True) as looker:
            until(
                lambda: looker.execute(waiting).fetchone()[0] >= MAX_QUERIES_PER_USER,
                "as many searches run as may",
            )
            refused = until(lambda: [one for one in sent if one.done()], "the others are refused")
            for path in ("/v1/user-integrations", "/v1/user-integration-content"):
                assert other.get(path).json() == {"items": [], "cursor": None}
            assert looker.execute(waiting).fetchone()[0] == MAX_QUERIES_PER_USER
        holder.rollback()
        assert {one.result().status_code for one in refused} == {503}
        assert sorted({one.result().status_code for one in sent}) == [200, 503]
