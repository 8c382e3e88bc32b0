"""The overview, and the live updates of pages."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from support.dashboard import Browser, Dashboard

from core.dashboard import live as streaming
from core.ledger import processes, pruning

EVENTS = {"Accept": "text/event-stream"}


def standing(page: str, name: str) -> str:
    """Return the condition of a part of the fleet that the overview shows."""
    before, found, _ = page.partition(f'"><b>{name}</b>')
    assert found, f"{name} is not on the page"
    return before.rpartition('<li class="')[2]


def figure(page: str, label: str) -> str:
    """Return the value of a figure."""
    _, found, after = page.partition(label)
    assert found, f"{label} is not on the page"
    return after.partition("<dd>")[2].partition("</dd>")[0]


def test_the_overview_of_a_healthy_fleet_has_no_warning(dashboard: Dashboard, healthy) -> None:
    page = dashboard.sign_in().get("/").text
    assert {
        standing(page, name)
        for name in ("database", "schema", "workers", "dispatcher", "scheduler", "redis")
    } == {"ok"}
    assert "host:17" in page
    assert "1 process, 8 threads" in " ".join(page.split())


def test_the_overview_does_not_count_a_dispatcher_as_a_worker(
    dashboard: Dashboard, healthy, desk
) -> None:
    processes.heartbeat(
        desk.conn, processes.Process(uuid4(), "dispatcher", "host", 18, [], 0), datetime.now(UTC)
    )
    page = dashboard.sign_in().get("/").text
    assert "host:18" in page
    assert "1 process" in page


def test_each_figure_of_the_queue_leads_to_what_it_counts(
    dashboard: Dashboard, healthy, desk
) -> None:
    names = ("ready", "queued", "idle", "limited", "of a group", "paused")
    accounts = {name: desk.account(name, group="team/1") for name in names}
    for name in ("queued", "ready", "paused"):
        desk.run(accounts[name])
        if name == "queued":
            desk.claim()
    desk.conn.execute("UPDATE user_integration SET sync_status = 'paused' WHERE name = 'paused'")
    desk.conn.execute("UPDATE user_integration SET limit_group = NULL WHERE name <> 'of a group'")
    desk.conn.execute("UPDATE sync_task SET available_at = now() - interval '2 hours'")
    for key, until in (
        (f"account/{accounts['limited']}/calls", "1 minute"),
        ("group/shop/team/1/calls", "1 minute"),
        (f"account/{accounts['idle']}/calls", "-1 minute"),
        ("integration/other/calls", "1 minute"),
    ):
        desk.conn.execute(
            "INSERT INTO limit_block (key, until) VALUES (%s, now() + %s::interval)", (key, until)
        )
    operator = dashboard.sign_in()
    page = operator.get("/").text
    counted = {
        "Ready tasks": ("/accounts?due=ready_tasks", ["ready", "paused"]),
        "Queued tasks": ("/accounts?due=queued_tasks", ["queued"]),
        "Exhausted limits": ("/accounts?due=exhausted_limit", ["limited", "of a group"]),
    }
    for label, (address, found) in counted.items():
        assert f'<a href="{address}">{label}</a>' in page
        shown = operator.get(address).text
        assert {name for name in names if f">{name}</a>" in shown} == {*found}, label
        waiting = address.partition("=")[2]
        rows = dashboard.admin.get("/v1/user-integrations", params={"waiting": waiting}).json()
        assert {row["name"] for row in rows["items"]} == {*found}, label
    (oldest,) = desk.rows(
        "SELECT id FROM sync_task WHERE state = 'ready' AND user_integration_id = %s",
        accounts["ready"],
    )
    assert f'<a href="/tasks/{oldest[0]}">Oldest ready task</a>' in page
    desk.conn.execute("UPDATE limit_block SET key = 'integration/shop/calls' WHERE key ^@ 'int'")
    assert all(
        f">{name}</a>" in operator.get("/accounts?due=exhausted_limit").text for name in names
    )


def test_a_silent_scheduler_is_shown_within_two_intervals(
    dashboard: Dashboard, healthy, desk
) -> None:
    desk.conn.execute(
        "UPDATE engine_state SET last_tick_at = clock_timestamp() - interval '3.6 minutes'"
    )
    assert standing(dashboard.sign_in().get("/").text, "scheduler") == "warn"


def test_an_overdue_account_is_shown_within_two_intervals(
    dashboard: Dashboard, healthy, desk
) -> None:
    account = desk.account("late")
    late = """
    UPDATE user_integration SET poll_interval_minutes = 10,
        next_sync_at = now() - {} * interval '1 minute' WHERE id = %s
    """
    desk.conn.execute(late.format(5), (account,))
    page = dashboard.sign_in().get("/").text
    assert (figure(page, "Accounts due now"), figure(page, "Overdue accounts")) == ("1", "0")
    desk.conn.execute(late.format(9), (account,))
    assert figure(dashboard.sign_in().get("/").text, "Overdue accounts") == "1"


def test_the_overview_tells_a_missing_fleet_from_old_content(dashboard: Dashboard) -> None:
    page = dashboard.sign_in().get("/").text
    assert {standing(page, name) for name in ("workers", "dispatcher", "scheduler")} == {"warn"}
    assert figure(page, "Overdue accounts") == "0"


def test_the_first_page_of_a_user_lists_their_accounts(dashboard: Dashboard) -> None:
    assert dashboard.sign_in("ann").get("/").headers["location"] == "/accounts"


def test_the_last_hour_sums_up_the_reports_of_workers(dashboard: Dashboard, desk) -> None:
    processes.record_throughput(desk.conn, 1_200, 600)
    processes.record_throughput(desk.conn, 34, 0)
    desk.conn.execute(
        """
        INSERT INTO throughput (minute, tasks, rows)
        VALUES (date_trunc('minute', now()) - interval '2 hours', 9, 9)
        """
    )
    page = dashboard.sign_in().get("/").text
    assert "last hour: 1,234;" in page
    assert "last hour: 600;" in page
    desk.conn.execute("UPDATE throughput SET minute = minute - interval '1 day' WHERE tasks = 9")
    pruning.prune(desk.conn)
    assert desk.rows("SELECT tasks FROM throughput") == [(1_234,)]


@contextmanager
def stream(browser: Browser, path: str) -> Iterator[Iterator[tuple[str, str]]]:
    """Yield the events of a page as (name, data)."""

    def events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
        name, data = "", []
        for line in lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data.append(line.removeprefix("data: "))
            elif not line and name:
                yield name, "\n".join(data)
                name, data = "", []

    with browser.client.stream("GET", path, headers=EVENTS) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer.iter_lines())


def test_a_page_streams_its_live_part_as_it_changes(dashboard: Dashboard, healthy, desk) -> None:
    browser = dashboard.sign_in()
    with stream(browser, "/") as events:
        name, first = next(events)
        assert (name, figure(first, "Active accounts")) == ("live", "0")
        assert "<html" not in first
        assert browser.csrf not in first, "all sessions share it"
        desk.account("new")
        assert any(figure(html, "Active accounts") == "1" for _, html in events)


def test_a_token_that_is_revoked_ends_the_stream(dashboard: Dashboard, desk, monkeypatch) -> None:
    monkeypatch.setattr(streaming, "AUTHORIZATION_SECONDS", 0.0)
    with stream(dashboard.sign_in(), "/") as events:
        assert next(events)[0] == "live"
        desk.conn.execute("UPDATE api_token SET revoked_at = now()")
        assert any(name == "end" for name, _ in events)


def test_slow_pages_leave_threads_to_other_requests() -> None:
    """Forty threads answer requests; a hundred viewers of slow pages occupy only four of them."""
    rendering, most, go_on = set(), [], threading.Event()

    def render(number: int) -> str:
        rendering.add(number)
        most.append(len(rendering))
        assert go_on.wait(20)
        rendering.discard(number)
        return "page"

    async def look_all() -> None:
        live = streaming.Live()
        looks = [
            asyncio.create_task(live.get((str(number),), number, partial(render, number)))
            for number in range(100)
        ]
        while len(rendering) < streaming.MAX_CONCURRENT_RENDERS:
            await asyncio.sleep(0.01)
        go_on.set()
        await asyncio.gather(*looks)

    asyncio.run(look_all())
    assert max(most) == streaming.MAX_CONCURRENT_RENDERS


def test_the_cache_drops_pages_without_viewers(monkeypatch) -> None:
    monkeypatch.setattr(streaming, "CACHE_SECONDS", -1_000.0)

    async def look() -> int:
        live = streaming.Live()
        for number in range(10):
            await live.get((str(number),), "ann", lambda: "page")
        return len(live._cache)

    assert asyncio.run(look()) <= 2
