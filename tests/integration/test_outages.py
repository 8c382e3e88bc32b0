"""Outages in the commands, the API and the dashboard."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from support.signed_in import signed_in

from core.accounts import store
from core.service.accounts import blockers
from core.service.fleet.doctor import fleet as doctor
from core.service.fleet.outages import MAX_COUNTED, Outage, outages

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def away(desk: Any) -> Any:
    """Return `away(account, limit)`, which opens a breaker whose probe has failed."""

    def open_breaker(account: UUID, limit: str = "", *, probes: int = 1) -> None:
        desk.conn.execute(
            "INSERT INTO breaker (user_integration_id, limit_name, integration_domain, types,"
            " failed_tasks, reason, first_failed_at, opened_at, probe_at, failed_probes)"
            " SELECT id, %s, integration_domain, CASE WHEN %s <> '' THEN ARRAY['page'] END, '{}',"
            " 'HTTP 503', now() - interval '1 h', now(), now() + interval '5 min', %s"
            " FROM user_integration WHERE id = %s",
            (limit, limit, probes, account),
        )

    return open_breaker


def waiting(desk: Any, account: UUID) -> None:
    """Add three tasks that wait: two steps and a deferred page."""
    run = desk.run(account)
    desk.conn.execute("UPDATE sync_task SET state = 'done' WHERE run_id = %s", (run,))
    desk.add(run, "a", "b")
    (page,) = desk.add(run, "c", type="page")
    desk.conn.execute("UPDATE sync_task SET state = 'deferred' WHERE id = %s", (page,))


def test_an_outage_counts_accounts_and_waiting_tasks(desk, away) -> None:
    one, two, three = (desk.account(name) for name in "abc")
    desk.conn.execute(store.PAUSE, (three,))
    for account in (one, two):
        waiting(desk, account)
    away(one)
    away(two, probes=0)
    away(three)
    (outage,) = outages(desk.conn)
    assert (outage.accounts, outage.active, outage.tasks) == (1, 2, 3)
    away(two, "s")
    assert [(each.limit_name, each.tasks) for each in outages(desk.conn)] == [("", 3), ("s", 1)]


def test_the_sentence_says_what_waits_and_until_when() -> None:
    outage = Outage("x", "", 1_200, NOON, NOON + timedelta(minutes=18), 1_210, 18_256)
    assert outage.sentence("Gmail", NOON) == (
        "Gmail has not answered since 12:00 UTC for 1,200 of 1,210 accounts; 18,256 tasks wait;"
        " next try 12:18 UTC; nothing is lost"
    )
    outage = Outage("x", "users.list", 1, NOON - timedelta(days=3), NOON, 5, MAX_COUNTED + 1)
    assert outage.sentence("Slack", NOON) == (
        "Slack has not answered users.list since 2026-01-28 12:00:00 UTC for 1 of 5 accounts;"
        " more than 100,000 tasks wait; next try now; nothing is lost"
    )


def test_a_person_sees_what_an_account_waits_for(backend, desk, away, healthy) -> None:
    account = desk.account()
    away(account)
    (blocker,) = blockers.blockers(backend, desk.conn, store.load(desk.conn, account))
    assert blocker.reason.startswith("the provider has not answered since ")
    assert blocker.reason.endswith(": HTTP 503")
    assert blocker.until is not None


def test_doctor_api_and_overview_tell_of_an_outage(desk, away, api, dashboard, backend) -> None:
    mine, theirs = desk.account("m", user_id="me"), desk.account("t", user_id="them")
    away(mine)
    away(theirs)
    text = "shop has not answered since "
    checks = doctor.examine(desk.conn, backend.settings, backend.registry)
    assert [check.message.startswith(text) for check in checks if check.name == "outage"] == [True]
    (of_all,) = api.admin.get("/v1/outages").json()["items"]
    (of_mine,) = api.user("me").get("/v1/outages").json()["items"]
    assert (of_all["accounts"], of_mine["accounts"], of_mine["active_accounts"]) == (2, 1, 1)
    assert of_all["sentence"].startswith(text)
    assert api.user("nobody").get("/v1/outages").json()["items"] == []
    assert text in signed_in(dashboard).get("/").text
    assert "has not answered since" in signed_in(dashboard, "me").get(f"/accounts/{mine}").text
