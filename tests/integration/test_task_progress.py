"""`ctx.progress`: a running task says how far it is, and people see it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.signed_in import signed_in

from core.accounts import store
from core.ledger.leases import record_progress
from core.ledger.outcomes import Dispatch
from core.worker.context import TaskContext
from core.worker.inflight import InflightTasks

PROGRESS = "SELECT progress_done, progress_total FROM sync_task WHERE id = %s"


@pytest.fixture
def running(desk: Any, shop: Any) -> list[Dispatch]:
    """Two running tasks of an account of the user `u`."""
    root = desk.root(desk.account(user_id="u"))
    desk.finish(root, tasks=[shop.step.task(number=number) for number in range(2)])
    tasks: list[Dispatch] = desk.claim()
    return tasks


@pytest.fixture
def inflight(running: list[Dispatch]) -> InflightTasks:
    """The running tasks, as their process knows them."""
    inflight = InflightTasks()
    for dispatch in running:
        inflight.receive(dispatch)
        inflight.start(dispatch, 60)
    return inflight


@pytest.fixture
def context_of(desk: Any, inflight: InflightTasks) -> Any:
    """Return `context_of(dispatch)`, the context of a running task."""

    def make(dispatch: Dispatch) -> TaskContext:
        loaded: Any = SimpleNamespace(account=store.load(desk.conn, dispatch.account_id))
        services: Any = SimpleNamespace(report=inflight.report)
        instance: Any = None
        return TaskContext(services, dispatch, loaded, instance)

    return make


@pytest.fixture
def record(desk: Any, inflight: InflightTasks) -> Callable[[], None]:
    """Return a function that records the reports, as the heartbeat does."""
    return lambda: record_progress(desk.conn, inflight.take_reports())


def test_the_latest_report_of_each_task_is_recorded(
    desk: Any, running: list[Dispatch], context_of: Any, record: Callable[[], None]
) -> None:
    first, second = running
    context_of(first).progress(10, 200)
    context_of(first).progress(20, 200)
    record()
    assert desk.rows(PROGRESS, first.task_id) == [(20, 200)]
    context_of(first).progress(30)
    context_of(second).progress(1, 2)
    record()
    assert desk.rows(PROGRESS, first.task_id) == [(30, None)]
    assert desk.rows(PROGRESS, second.task_id) == [(1, 2)]


def test_a_recorded_report_is_not_recorded_again(
    running: list[Dispatch], context_of: Any, inflight: InflightTasks
) -> None:
    context_of(running[0]).progress(10)
    assert inflight.take_reports() == {running[0].lease: (10, None)}
    assert inflight.take_reports() == {}


def test_a_report_of_an_earlier_dispatch_is_ignored(
    desk: Any, running: list[Dispatch], context_of: Any, record: Callable[[], None]
) -> None:
    desk.conn.execute("UPDATE sync_task SET token = token + 1")
    context_of(running[0]).progress(10, 200)
    record()
    assert desk.rows(PROGRESS, running[0].task_id) == [(None, None)]


def test_a_report_after_the_end_of_a_task_is_ignored(
    running: list[Dispatch], context_of: Any, inflight: InflightTasks
) -> None:
    inflight.finish(running[0])
    context_of(running[0]).progress(10)
    assert inflight.take_reports() == {}


@pytest.mark.parametrize("units", [(-1, None), (0, -1), (2**63, None)])
def test_an_invalid_report_is_an_error(
    running: list[Dispatch], context_of: Any, units: tuple[int, int | None]
) -> None:
    with pytest.raises(ValueError, match="not a number of units"):
        context_of(running[0]).progress(*units)


def test_the_api_shows_the_reports_of_running_tasks(
    api: Any,
    desk: Any,
    running: list[Dispatch],
    context_of: Any,
    record: Callable[[], None],
) -> None:
    run = running[0].run_id

    def shown() -> tuple[int | None, int | None]:
        body = api.admin.get(f"/v1/runs/{run}").json()
        return body["progress_done"], body["progress_total"]

    assert shown() == (None, None)
    context_of(running[0]).progress(1_000, 4_000)
    record()
    assert shown() == (1_000, 4_000)
    context_of(running[1]).progress(24)
    record()
    assert shown() == (1_024, None)
    task = api.admin.get(f"/v1/tasks/{running[0].task_id}").json()
    assert (task["progress_done"], task["progress_total"]) == (1_000, 4_000)
    for dispatch in running:
        desk.finish(dispatch)
    assert shown() == (None, None)


def test_the_dashboard_shows_the_reports_of_running_tasks(
    dashboard: Any, running: list[Dispatch], context_of: Any, record: Callable[[], None]
) -> None:
    context_of(running[0]).progress(1_000, 4_000)
    record()
    browser = signed_in(dashboard)
    pages = [f"/runs/{running[0].run_id}", f"/tasks/{running[0].task_id}"]
    for page in pages:
        assert "1,000 of 4,000" in browser.get(page).text
