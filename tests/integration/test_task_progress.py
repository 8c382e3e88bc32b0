"""`ctx.progress`: a running task says how far it is, and people see it."""

from __future__ import annotations

from typing import Any

import pytest
from support.signed_in import signed_in

from core.db.pool import Database
from core.ledger.outcomes import Dispatch
from core.worker import context as module
from core.worker.context import TaskContext

PROGRESS = "SELECT progress_done, progress_total FROM sync_task WHERE id = %s"


@pytest.fixture
def running(desk: Any, shop: Any) -> list[Dispatch]:
    """Two running tasks of an account of the user `u`."""
    root = desk.root(desk.account(user_id="u"))
    desk.finish(root, tasks=[shop.step.task(number=number) for number in range(2)])
    tasks: list[Dispatch] = desk.claim()
    return tasks


@pytest.fixture
def context_of(database: Database, desk: Any) -> Any:
    """Return `context_of(dispatch)`, the context of a running task."""

    def make(dispatch: Dispatch) -> TaskContext:
        from core.accounts import store

        class Loaded:
            account = store.load(desk.conn, dispatch.account_id)

        class Services:
            pass

        services: Any = Services()
        services.database = database
        loaded: Any = Loaded()
        instance: Any = None
        return TaskContext(services, dispatch, loaded, instance)

    return make


def test_a_report_is_recorded_once_a_second(
    desk: Any, running: list[Dispatch], context_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(running[0])
    context.progress(10, 200)
    context.progress(20, 200)
    assert desk.rows(PROGRESS, running[0].task_id) == [(10, 200)]
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0.0)
    context.progress(30)
    assert desk.rows(PROGRESS, running[0].task_id) == [(30, None)]
    assert desk.rows(PROGRESS, running[1].task_id) == [(None, None)]


def test_a_report_of_an_earlier_dispatch_is_ignored(
    desk: Any, running: list[Dispatch], context_of: Any
) -> None:
    desk.conn.execute("UPDATE sync_task SET token = token + 1")
    context_of(running[0]).progress(10, 200)
    assert desk.rows(PROGRESS, running[0].task_id) == [(None, None)]


@pytest.mark.parametrize("units", [(-1, None), (0, -1), (2**63, None)])
def test_an_invalid_report_is_an_error(
    running: list[Dispatch], context_of: Any, units: tuple[int, int | None]
) -> None:
    with pytest.raises(ValueError, match="not a number of units"):
        context_of(running[0]).progress(*units)


def test_the_api_shows_the_reports_of_running_tasks(
    api: Any, desk: Any, running: list[Dispatch], context_of: Any
) -> None:
    run = running[0].run_id

    def shown() -> tuple[int | None, int | None]:
        body = api.admin.get(f"/v1/runs/{run}").json()
        return body["progress_done"], body["progress_total"]

    assert shown() == (None, None)
    context_of(running[0]).progress(1_000, 4_000)
    assert shown() == (1_000, 4_000)
    context_of(running[1]).progress(24)
    assert shown() == (1_024, None)
    task = api.admin.get(f"/v1/tasks/{running[0].task_id}").json()
    assert (task["progress_done"], task["progress_total"]) == (1_000, 4_000)
    for dispatch in running:
        desk.finish(dispatch)
    assert shown() == (None, None)


def test_the_dashboard_shows_the_reports_of_running_tasks(
    dashboard: Any, running: list[Dispatch], context_of: Any
) -> None:
    context_of(running[0]).progress(1_000, 4_000)
    browser = signed_in(dashboard)
    pages = [f"/runs/{running[0].run_id}", f"/tasks/{running[0].task_id}"]
    for page in pages:
        assert "1,000 of 4,000" in browser.get(page).text
