"""Operations over the API: health, readiness and metrics.

Above all they show overdue accounts and a silent scheduler.
"""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core import TaskOutput
from core.ledger import completion, processes
from core.ledger.outcomes import Outcome
from core.metrics.counters import Counters, error_class


@pytest.fixture
def figures(api):
    """Return a function that reads the values of `/metrics` by name and labels."""

    def scrape():
        text = api.admin.get("/metrics").text
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    return scrape


@pytest.fixture(autouse=True)
def uncached(monkeypatch) -> None:
    monkeypatch.setattr("core.rest.metrics.CACHE_SECONDS", 0)


def test_the_health_check_needs_no_server_and_no_token(api) -> None:
    assert api.client(None).get("/healthz").json() == {"status": "ok", "checks": {}}


def test_a_healthy_fleet_is_ready(api, healthy) -> None:
    answer = api.client(None).get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert set(answer.json()["checks"].values()) == {"ok"}


def test_a_silent_scheduler_is_reported_within_two_intervals(api, healthy, desk, figures) -> None:
    # The scheduler ticks every two minutes.
    desk.conn.execute(
        "UPDATE engine_state SET last_tick_at = clock_timestamp() - interval '3.6 minutes'"
    )
    answer = api.client(None).get("/readyz")
    assert (answer.status_code, answer.json()["status"], answer.json()["checks"]["scheduler"]) == (
        200,
        "degraded",
        "warn",
    )
    assert figures()[("polling_scheduler_silent_seconds",)] >= 216


def test_an_overdue_account_is_reported_within_two_intervals(api, healthy, desk, figures) -> None:
    account = desk.account("a", poll_interval_minutes=15)
    desk.conn.execute("UPDATE user_integration SET next_sync_at = now() - interval '5 minutes'")
    assert api.client(None).get("/readyz").json()["checks"]["accounts"] == "ok"
    assert ("polling_accounts_overdue", "shop") not in figures()
    # The last run began 29 minutes ago.
    desk.conn.execute("UPDATE user_integration SET next_sync_at = now() - interval '14 minutes'")
    assert api.client(None).get("/readyz").json()["checks"]["accounts"] == "warn"
    assert figures()[("polling_accounts_overdue", "shop")] == 1
    desk.run(account)  # a run is open
    assert api.client(None).get("/readyz").json()["checks"]["accounts"] == "ok"


@pytest.mark.parametrize("found", ["other", "0000"])
def test_the_api_is_not_ready_with_another_schema(api, desk, found) -> None:
    desk.conn.execute("UPDATE alembic_version SET version_num = %s", (found,))
    answer = api.client(None).get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")


def test_the_old_version_stays_ready_during_a_rollout(api, desk, healthy) -> None:
    desk.conn.execute("UPDATE alembic_version SET version_num = '9999'")
    answer = api.client(None).get("/readyz")
    assert (answer.status_code, answer.json()["status"], answer.json()["checks"]["schema"]) == (
        200,
        "degraded",
        "warn",
    )


def test_metrics_count_open_breakers_and_deferred_tasks(api, desk, figures) -> None:
    first, second = desk.account("a"), desk.account("b")
    desk.add(desk.run(first), "1", "2", "3")
    desk.conn.execute("UPDATE sync_task SET state = 'deferred' WHERE id IN (1, 2)")
    for account, limit, is_open in ((first, "", True), (second, "", False), (second, "x", True)):
        desk.conn.execute(
            "INSERT INTO breaker (user_integration_id, limit_name, integration_domain, failures,"
            " failed_tasks, reason, first_failed_at, opened_at, probe_at)"
            " VALUES (%s, %s, 'shop', 5, '{}', 'down', now(), CASE WHEN %s THEN now() END, now())",
            (account, limit, is_open),
        )
    found = figures()
    assert found[("polling_tasks_deferred", "shop")] == 2
    assert found[("polling_breakers_open", "", "shop")] == 1
    assert found[("polling_breakers_open", "shop", "x")] == 1


def test_metrics_show_the_current_state(api, desk, figures) -> None:
    first, second = desk.account("a"), desk.account("b")
    run = desk.run(first)
    desk.add(run, "1", "2", "3")
    errors = '[{"error": "ValueError: secret things"}]'
    desk.conn.execute(
        "UPDATE sync_task SET state = 'parked', errors = %s WHERE id IN (1, 2)", (errors,)
    )
    desk.conn.execute(
        "UPDATE user_integration SET last_sync_at = now() - interval '10 minutes' WHERE id = %s",
        (second,),
    )
    found = figures()
    assert found[("polling_tasks", "ready", "shop")] == 2
    assert found[("polling_tasks_parked", "ValueError", "shop")] == 2
    assert found[("polling_queue_age_seconds", "shop")] >= 0
    assert found[("polling_runs_open", "live", "shop")] == 1
    assert found[("polling_accounts", "active", "shop")] == 2
    assert found[("polling_account_age_seconds_bucket", "300", "shop")] == 1
    assert found[("polling_account_age_seconds_bucket", "900", "shop")] == 2
    assert found[("polling_dispatcher_leads",)] == 0
    assert not [key for key in found if "secret" in str(key)]


def test_metrics_sum_up_the_counters_of_workers(api, desk, healthy, figures) -> None:
    from datetime import UTC, datetime

    counted = Counters()
    dispatch = desk.root(desk.account("a"))
    saved = desk.save(desk.outcome(dispatch, output=[TaskOutput("1", "x"), TaskOutput("2", "x")]))
    counted.count_commits([saved], completion.end_runs(desk.conn, {dispatch.run_id}))
    parked = desk.root(desk.account("b"))
    counted.count_commits(
        [desk.save(Outcome(parked, state="parked", attempt=1, error="KeyError: 'x'", reason="x"))],
        [],
    )
    counted.count("budget_waits", domain="shop", limit="quota")
    counted.count("of_another_version", nobody="knows")
    processes.heartbeat(desk.conn, healthy, datetime.now(UTC), counted.written())
    found = figures()
    assert found[("polling_saves_total", "host:17")] == 2
    assert found[("polling_outputs_changed_total", "host:17", "shop")] == 2
    assert found[("polling_tasks_total", "", "done", "host:17", "shop")] == 1
    assert found[("polling_tasks_total", "KeyError", "host:17", "parked", "shop")] == 1
    assert found[("polling_runs_total", "host:17", "live", "shop", "succeeded")] == 1
    assert found[("polling_run_seconds_bucket", "+Inf", "host:17", "live", "shop")] == 1
    assert found[("polling_run_seconds_bucket", "60", "host:17", "live", "shop")] == 1
    assert found[("polling_budget_waits_total", "host:17", "quota", "shop")] == 1


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ValueError: x", "ValueError"),
        ("Timeout", "Timeout"),
        ("a secret: x", "other"),
        ("x" * 90, "other"),
        (None, ""),
    ],
)
def test_the_error_class_in_a_label_contains_no_data(text, name) -> None:
    assert error_class(text) == name


def test_the_number_of_series_is_bounded() -> None:
    counted = Counters()
    for number in range(5_000):
        counted.count("tasks", error=f"E{number}")
    assert len(counted.written()) == 2_000
