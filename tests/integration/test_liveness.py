"""All commands, pages and routes mean the same by alive, silent, overdue and leading."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from core.accounts import store
from core.db import version
from core.ledger import leadership, processes
from core.plugins import Registry
from core.service.accounts import listing as account_listing
from core.service.fleet import doctor, health, liveness, snapshot
from core.service.fleet.doctor import accounts, fleet, servers
from core.settings import Settings

SETTINGS = Settings(_env_file=None)
"""Settings with which the scheduler ticks every two minutes."""

FLEET = ("workers", "dispatcher", "scheduler")

CASES: dict[str, tuple[str, dict[str, str]]] = {
    "all is well": ("SELECT", {}),
    "a late tick": (
        "UPDATE engine_state SET last_tick_at = clock_timestamp() - interval '3.4 minutes'",
        {},
    ),
    "a silent scheduler": (
        "UPDATE engine_state SET last_tick_at = clock_timestamp() - interval '3.6 minutes'",
        {"scheduler": "warn"},
    ),
    "a scheduler that never ticked": (
        "WITH old AS (UPDATE process SET started_at = clock_timestamp() - interval '3.6 minutes')"
        " UPDATE engine_state SET last_tick_at = NULL",
        {"scheduler": "warn"},
    ),
    "a late heartbeat": (
        "UPDATE process SET seen_at = clock_timestamp() - interval '13 seconds'",
        {},
    ),
    "a dead worker": (
        "UPDATE process SET seen_at = clock_timestamp() - interval '15.1 seconds'",
        {"workers": "warn"},
    ),
    "no leader": (
        "UPDATE engine_state SET leader_until = clock_timestamp() - interval '1 second'",
        {"dispatcher": "fail"},
    ),
    "neither worker nor leader": (
        "WITH gone AS (DELETE FROM process)"
        " UPDATE engine_state SET leader = NULL, leader_until = NULL",
        {"workers": "warn", "dispatcher": "warn"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_all_reports_agree_on_the_fleet(api, healthy, desk, case: str) -> None:
    statement, different = CASES[case]
    desk.conn.execute(statement)
    expected = dict.fromkeys(FLEET, "ok") | different
    looked = health.check(api.backend)
    assert {name: looked[name] for name in FLEET} == expected
    checks = {check.name: check.status for check in fleet.examine(desk.conn, SETTINGS, Registry())}
    assert {name: checks[name] for name in FLEET} == expected
    found = snapshot.collect(desk.conn, SETTINGS)
    assert found.leads == (expected["dispatcher"] == "ok")
    silent = found.silent_seconds > liveness.silent_after_seconds(SETTINGS)
    assert silent == (expected["scheduler"] == "warn")
    alive = any(row["kind"] == "worker" for row in found.processes)
    assert alive == bool(liveness.live_workers(desk.conn)) == (expected["workers"] == "ok")


def test_a_new_installation_waits_for_the_first_tick(api, healthy, desk) -> None:
    desk.conn.execute("UPDATE engine_state SET last_tick_at = NULL")
    assert health.check(api.backend)["scheduler"] == "ok"
    checks = {check.name: check for check in fleet.examine(desk.conn, SETTINGS, Registry())}
    assert checks["scheduler"].status == "ok"
    assert checks["scheduler"].message == "has not fired yet: it fires every 2 min"


def test_the_oldest_ready_task_is_of_an_account_that_may_run(desk) -> None:
    waiting, stopped = desk.account("waiting"), desk.account("stopped")
    paused = desk.account("paused", "depot")
    for account, minutes in ((waiting, 5), (stopped, 50), (paused, 500)):
        desk.run(account)
        desk.conn.execute(
            "UPDATE sync_task SET available_at = now() - %s * interval '1 minute'"
            " WHERE user_integration_id = %s",
            (minutes, account),
        )
    ages = {
        row["domain"]: row["seconds"] for row in snapshot.collect(desk.conn, SETTINGS).queue_age
    }
    assert (ages["shop"] > 2_900, ages["depot"] > 29_000) == (True, True)
    desk.conn.execute(store.PAUSE, (stopped,))
    desk.conn.execute(
        "INSERT INTO integration (domain, name, version, tasks, max_tasks, paused_at)"
        " VALUES ('depot', 'Depot', '1', '{}', 0, now())"
    )
    ages = {
        row["domain"]: row["seconds"] for row in snapshot.collect(desk.conn, SETTINGS).queue_age
    }
    assert ages.keys() == {"shop"}
    assert 290 < ages["shop"] < 2_900


def test_a_candidate_that_waits_to_lead_has_no_wrong_clock(healthy, desk) -> None:
    """A candidate writes its row only when it tries to lead."""
    candidate = processes.Process(uuid4(), "dispatcher", "standby", 1, [], 0)
    processes.heartbeat(desk.conn, candidate, datetime.now(UTC) - timedelta(minutes=10))
    assert "standby" in " ".join(_wrong_clocks(desk))
    leadership.lead(desk.conn, candidate.id)
    assert _wrong_clocks(desk) == []


def _wrong_clocks(desk: Any) -> list[str]:
    checks = fleet.examine(desk.conn, SETTINGS, Registry())
    return [check.message for check in checks if check.name == "clock"]


@pytest.mark.parametrize(
    ("interval", "minutes", "overdue"),
    [
        (10, 7.4, False),
        (10, 7.6, True),
        (2, 3.4, False),  # an account is never overdue before the scheduler counts as silent
        (2, 3.6, True),
        (60, 44, False),
        (60, 46, True),
    ],
)
def test_all_reports_agree_on_an_overdue_account(
    api, desk, interval: int, minutes: float, overdue: bool
) -> None:
    account = desk.account("late", poll_interval_minutes=interval)
    desk.conn.execute(
        "UPDATE user_integration SET next_sync_at = now() - %s * interval '1 minute'", (minutes,)
    )
    assert _says_overdue(api, desk) == [overdue] * 5
    desk.run(account)  # a run is open, however long it takes
    assert _says_overdue(api, desk) == [False] * 5


def test_a_check_is_answered_while_a_part_of_the_database_is_locked(
    api, desk, healthy, connect
) -> None:
    """A load balancer waits for `/readyz`. Without the bound, it would wait for the lock."""
    other = connect()
    with other.transaction():
        other.execute("LOCK TABLE user_integration IN ACCESS EXCLUSIVE MODE")
        checks = health.check(api.backend)
        assert (
            api.backend.health_flight.results(lambda *_: pytest.fail("it asked again"), 0.0)[1]
            is False
        )
    assert (checks["database"], checks["schema"], checks["accounts"]) == ("ok", "ok", "warn")
    assert health.is_ready(checks)


def test_a_database_that_does_not_answer_is_not_ready(api, connect) -> None:
    other = connect()
    with other.transaction():
        other.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        checks = health.check(api.backend)
    assert not health.is_ready(checks)


def _says_overdue(api: Any, desk: Any) -> list[bool]:
    listed, _ = account_listing.page(api.backend, desk.conn)
    over, _ = account_listing.page(api.backend, desk.conn, due="over")
    return [
        health.check(api.backend)["accounts"] == "warn",
        any(check.message.endswith("overdue") for check in accounts.examine(desk.conn, SETTINGS)),
        bool(snapshot.collect(desk.conn, SETTINGS).overdue),
        any(entry.overdue for entry in listed),
        bool(over),
    ]


@pytest.mark.parametrize(
    ("revision", "status"),
    [(version.HEAD, "ok"), ("9999", "warn"), ("0000", "fail"), ("x", "fail")],
)
def test_all_reports_agree_on_the_schema(api, desk, revision: str, status: str) -> None:
    desk.conn.execute("UPDATE alembic_version SET version_num = %s", (revision,))
    check: doctor.Check = servers.schema(api.backend.database.url)
    assert (health.check(api.backend)["schema"], check.status) == (status, status)
