"""The limits of integrations: how they are shown, and how an operator changes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from support.signed_in import signed_in

from core import BaseIntegration, Concurrency, Context, Manifest, Rate, TaskResult, task
from core.dispatcher.allocation import Rules
from core.ledger import limit_overrides, processes
from core.ledger.dispatching import Waiting
from core.limits.budgets import Budgets
from core.limits.keys import to_json
from core.plugins import catalog_entry
from core.service.backend import Backend
from core.settings import LimitOverride

CALLS = Rate("calls", 10, 60.0)
PLACES = Concurrency("places", 2, by="group")


class Limited(BaseIntegration):
    manifest = Manifest("limited", "Limited", limits=[CALLS, PLACES])

    @task(cost={CALLS.name: 3})
    def call(self, ctx: Context) -> TaskResult:
        return TaskResult()


@pytest.fixture
def integrations() -> Sequence[Any]:
    return [Limited]


@pytest.fixture
def waiting(desk: Any, backend: Backend) -> list[Any]:
    """Two accounts of two users with open runs, which share the places of a group."""
    processes.register(desk.conn, [catalog_entry(backend.registry, "limited")])
    limits = to_json([CALLS, PLACES])
    given = {"domain": "limited", "limits": limits, "group": "g"}
    accounts = [desk.account(user, user_id=user, **given) for user in ("ann", "bob")]
    for account in accounts:
        desk.run(account)
    return accounts


def budgets(client: Any) -> dict[str, Any]:
    """Return the budgets in use, by key."""
    limits = client.get("/v1/limits").json()["items"]
    return {budget["key"]: budget for limit in limits for budget in limit["budgets"]}


def test_each_limit_shows_what_is_used_and_who_waits(api, desk, backend, waiting) -> None:
    ann, _ = waiting
    request = Rules("limited", {"call": {"calls": 3}}, {}).rates(
        [Waiting("ann", str(ann), "g", to_json([CALLS]), True, False)]
    )[0]
    queues = backend.queues
    budgets_of_workers = Budgets(queues.client, queues.key, lambda: True, queues.run_first)
    assert budgets_of_workers.take([request._replace(units=9)]) is None
    found = budgets(api.admin)
    mine = found[f"account/{ann}/calls"]
    assert (mine["used"], mine["left"], mine["waiting_accounts"]) == (9, 1, 1)
    assert mine["more_at"] is not None
    assert mine["waiting"] == [{"user_integration_id": str(ann), "name": "ann"}]
    places = found["group/limited/g/places"]
    assert (places["used"], places["left"], places["waiting"]) == (0, 2, [])
    desk.conn.execute("UPDATE sync_task SET state = 'queued'")
    places = budgets(api.admin)["group/limited/g/places"]
    assert (places["used"], places["left"]) == (2, 0)


def test_a_user_sees_the_budgets_of_their_own_accounts(api, dashboard, waiting) -> None:
    ann, bob = map(str, waiting)
    found = budgets(api.user("bob"))
    assert f"account/{bob}/calls" in found
    assert ann not in str(found)
    page = signed_in(dashboard, "bob").get("/limits").text
    assert bob in page
    assert ann not in page
    assert "Change a limit" not in page


def test_an_operator_changes_and_resets_a_limit(api, desk, backend) -> None:
    place = "/v1/limits/limited/calls"
    changed = api.admin.patch(place, json={"units": 20})
    assert (changed.status_code, changed.json()["units"], changed.json()["per"]) == (200, 20, 60)
    assert changed.json()["is_changed"]
    assert api.admin.patch(place, json={"per": 30}).json()["units"] == 20, "it stays"
    assert backend.limits(desk.conn)["limited"]["calls"] == LimitOverride(units=20, per=30)
    again = api.admin.delete(place).json()
    assert (again["units"], again["per"], again["is_changed"]) == (10, 60, False)
    acts = desk.rows(
        "SELECT act, detail ->> 'figures' FROM audit WHERE act LIKE 'limit%' ORDER BY id"
    )
    assert acts == [
        ("limit.change", '{"units": 20}'), ("limit.change", '{"per": 30.0}'), ("limit.change", "{}")
    ]  # fmt: skip


def test_a_row_replaces_single_figures_of_the_settings(desk) -> None:
    settings = {"limited": {"calls": LimitOverride(units=5, per=1)}}
    limit_overrides.change(desk.conn, "limited", "calls", LimitOverride(per=2))
    found = limit_overrides.effective(desk.conn, settings)
    assert found == {"limited": {"calls": LimitOverride(units=5, per=2)}}
    assert settings["limited"]["calls"].per == 1


def test_the_leader_releases_waiting_tasks_when_all_workers_know_a_change(desk, waiting) -> None:
    """A refusal of the provider stays."""
    ann, bob = waiting
    later = "UPDATE sync_task SET available_at = now() + interval '1 h', reason = %s"
    desk.conn.execute(later, ("rate limit 'calls' is exhausted",))
    block = "INSERT INTO limit_block VALUES (%s, now() + interval '1 h', %s)"
    desk.conn.execute(block, (f"account/{ann}/calls", "rate limit 'calls' is exhausted"))
    desk.conn.execute(block, (f"account/{bob}/calls", "HTTP 429"))
    limit_overrides.change(desk.conn, "limited", "calls", LimitOverride(units=50))
    assert limit_overrides.settled(desk.conn, {}, {}) == {}
    open_tasks = "SELECT count(*) FROM sync_task WHERE available_at <= clock_timestamp()"
    assert desk.value(open_tasks) == 0
    desk.conn.execute("UPDATE limit_override SET changed_at = now() - interval '8 s'")
    found = limit_overrides.settled(desk.conn, {}, {})
    assert found == {"limited": {"calls": LimitOverride(units=50)}}
    assert desk.value(open_tasks) == 2
    assert desk.rows("SELECT reason FROM limit_block") == [("HTTP 429",)]
    assert limit_overrides.settled(desk.conn, {}, found) is found


@pytest.mark.parametrize(
    ("place", "figures", "status"),
    [
        ("limited/none", {"units": 1}, 404),
        ("none/calls", {"units": 1}, 404),
        ("limited/calls", {}, 422),
        ("limited/calls", {"tasks": 1}, 422),
        ("limited/places", {"units": 1}, 422),
        ("limited/calls", {"units": 0}, 422),
        ("limited/calls", {"per": 1e10}, 422),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(api, desk, place, figures, status) -> None:
    answer = api.admin.patch(f"/v1/limits/{place}", json=figures)
    assert answer.status_code == status, answer.text
    assert desk.rows("SELECT * FROM limit_override") == []
    assert desk.rows("SELECT * FROM audit WHERE act LIKE 'limit%'") == []


def test_only_an_operator_may_change_a_limit(api, dashboard, desk) -> None:
    for client in (api.user("ann"), api.client(api.token(scopes=["metrics:read"]))):
        answer = client.patch("/v1/limits/limited/calls", json={"units": 20})
        assert answer.status_code == 403
        assert client.delete("/v1/limits/limited/calls").status_code == 403
    signed_in(dashboard, "ann").post("/limits", 403, limit="limited/calls", units="20")
    assert desk.rows("SELECT * FROM limit_override") == []


def test_the_dashboard_changes_and_resets_a_limit(dashboard, desk) -> None:
    operator = signed_in(dashboard)
    assert "10 in 1 min" in operator.get("/limits").text
    operator.post("/limits", limit="limited/calls", units="20", per="", tasks="")
    assert "20 in 1 min" in operator.get("/limits").text
    operator.post("/limits", 422, limit="limited/calls", units="many")
    operator.post("/limits", limit="limited/calls", reset="yes")
    assert "10 in 1 min" in operator.get("/limits").text
