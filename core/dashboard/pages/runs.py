"""The list of runs, the page of a run with its tree of tasks, and the page of a task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response

from core.dashboard import query_filters
from core.dashboard.query_filters import Text
from core.dashboard.responses import Renderer, redirect
from core.dashboard.session import (
    ActionForm,
    DetailViewer,
    FleetOperatingViewer,
    OperatingViewer,
    StatusViewer,
    Viewer,
)
from core.dashboard.wording import sentences
from core.db.pool import Conn
from core.errors import InvalidInput, NotFound
from core.service import authorization, times
from core.service.accounts import queries as account_queries
from core.service.accounts import waiting
from core.service.backend import Backend
from core.service.runs import actions as run_actions
from core.service.runs import listing as run_listing
from core.service.runs import progress
from core.service.runs import queries as run_queries
from core.service.runs import tree as run_tree
from core.service.runs.progress import Progress
from core.states import STOPPED_TASKS, RunState, TaskState, Trigger
from core.web.dependencies import MAX_ID, After, Engine, RunId, TaskId

router = APIRouter()

STATES = RunState.used()

MAX_SHOWN_CHARS = 20_000
"""The number of characters of a payload that a page shows."""

Parent = Annotated[int | None, Query(ge=1, le=MAX_ID)]


@router.get("/runs")
def list_runs(
    engine: Engine,
    viewer: StatusViewer,
    renderer: Renderer,
    account: Text = "",
    domain: Text = "",
    state: Text = "",
    trigger: Text = "",
    since: Text = "",
    until: Text = "",
    longer: Text = "",
    order: Literal["", "oldest"] = "",
    after: After = None,
) -> Response:
    """List the runs that the viewer may see, the newest first."""
    filters = {
        "account": account,
        "domain": domain,
        "state": state,
        "trigger": trigger,
        "since": since,
        "until": until,
        "longer": longer,
        "order": order,
    }

    def load(conn: Conn) -> Mapping[str, Any]:
        values = {
            "filters": filters,
            "states": STATES,
            "triggers": list(Trigger),
            "domains": query_filters.domains(engine, domain),
        }
        try:
            run_filter = run_listing.RunFilter(
                viewer.user_id,
                query_filters.find_account(conn, viewer, account),
                domain or None,
                state or None,
                since=times.past(since) if since.strip() else None,
                until=times.past(until) if until.strip() else None,
                trigger=trigger or None,
                min_seconds=times.seconds(longer) if longer.strip() else None,
            )
            page = run_listing.page(
                conn,
                engine.query_slots,
                run_filter,
                after=after,
                oldest_first=order == "oldest",
            )
        except (InvalidInput, NotFound) as error:
            return values | {"runs": [], "open": {}, "cursor": None, "wrong": sentences(error)}
        open_runs = {
            run["id"]: progress.cached(conn, engine.counts, run["id"])
            for run in page.rows
            if run["state"] == RunState.RUNNING
        }
        return values | {
            "runs": [authorization.shown(viewer.principal, run) for run in page.rows],
            "open": open_runs,
            "cursor": page.cursor,
            "wrong": None,
        }

    return renderer.live("runs.html", load)


@router.get("/runs/{run_id}")
def show_run(
    engine: Engine,
    viewer: DetailViewer,
    renderer: Renderer,
    run: RunId,
    parent: Parent = None,
    after: After = None,
) -> Response:
    """Show one run with its progress, the cause of its wait, and its tasks."""
    with engine.database.connection() as conn:
        _require(conn, viewer, run, parent)
    return renderer.live("run.html", lambda conn: _run(conn, engine, viewer, run, parent, after))


@router.post("/runs/{run_id}/cancel")
# `ActionForm` checks the CSRF token.
def cancel_run(engine: Engine, viewer: OperatingViewer, form: ActionForm, run: RunId) -> Response:
    """End a run now."""
    with engine.database.connection() as conn:
        authorization.require(conn, viewer.principal, "run", run)
    run_actions.cancel(engine, run)
    return redirect(f"/runs/{run}", "cancelled")


@router.get("/tasks/{task_id}")
def show_task(engine: Engine, viewer: DetailViewer, renderer: Renderer, task: TaskId) -> Response:
    """Show one task with the errors of its attempts."""
    with engine.database.connection() as conn:
        authorization.require(conn, viewer.principal, "task", task)
    return renderer.live("task.html", lambda conn: _task(conn, viewer, task))


@router.post("/tasks/{task_id}/retry")
def retry_task(engine: Engine, viewer: OperatingViewer, form: ActionForm, task: TaskId) -> Response:
    """Retry a parked task."""
    _require_task(engine, viewer, task)
    run_actions.count_request(engine, viewer.user_id)
    run_actions.retry(engine, [task])
    return redirect(f"/tasks/{task}", "retried")


@router.post("/tasks/{task_id}/retry-edited")
def retry_edited(
    engine: Engine,
    viewer: FleetOperatingViewer,
    renderer: Renderer,
    form: ActionForm,
    task: TaskId,
) -> Response:
    """Retry a parked task with an edited payload, or show the reason why that is not possible."""
    _require_task(engine, viewer, task)
    text = form.get("payload")
    try:
        copy = run_actions.retry_edited(engine, task, _parsed(text))
    except InvalidInput as error:
        wrong = sentences(error)
    else:
        return redirect(f"/tasks/{copy}", "retried-edited")
    with engine.database.connection() as conn:
        values = {**_task(conn, viewer, task), "wrong": wrong, "editable": text}
    return renderer.page("task.html", values, 422)


def _parsed(text: str) -> dict[str, Any]:
    """Return the JSON object of a text.

    Raises:
      InvalidInput: The text is not a JSON object.
    """
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("payload-invalid", reason=error) from None
    if not isinstance(payload, dict):
        raise InvalidInput("payload-invalid", reason="it is not a JSON object")
    return payload


@router.post("/tasks/{task_id}/discard")
def discard_task(
    engine: Engine, viewer: OperatingViewer, form: ActionForm, task: TaskId
) -> Response:
    """Discard a parked task."""
    _require_task(engine, viewer, task)
    run_actions.discard(engine, [task])
    return redirect(f"/tasks/{task}", "discarded")


def _require_task(engine: Backend, viewer: Viewer, task: int) -> None:
    with engine.database.connection() as conn:
        authorization.require(conn, viewer.principal, "task", task)


def _require(conn: Conn, viewer: Viewer, run: UUID, parent: int | None) -> None:
    authorization.require(conn, viewer.principal, "run", run)
    if parent is not None:
        authorization.require(conn, viewer.principal, "task", parent)


def _run(
    conn: Conn,
    engine: Backend,
    viewer: Viewer,
    run: UUID,
    parent: int | None,
    after: str | None,
) -> Mapping[str, Any]:
    _require(conn, viewer, run, parent)
    row = run_queries.runs.one(conn, "run", run)
    slots, counts = engine.query_slots, engine.counts
    now = progress.cached(conn, counts, run)
    account = progress.load_account(conn, now)
    running = row["state"] == RunState.RUNNING
    tasks = run_tree.tasks(conn, slots, run, parent, user=viewer.user_id, after=after)
    return {
        "run": row,
        "now": now,
        "account": account,
        "counters": now.counters(),
        "seconds": now.run["seconds"],
        "bar": _bar(now),
        "wait": waiting.of_run(engine, conn, account, now) if running else None,
        "branches": run_tree.cached_by_type(conn, slots, counts, run, viewer.user_id),
        "parent": parent,
        "above": run_tree.ancestors(conn, parent) if parent is not None else [],
        "tasks": tasks.rows,
        "cursor": tasks.cursor,
        "elsewhere": (
            run_tree.background_run(conn, parent)
            if parent is not None and not tasks.rows and not after
            else None
        ),
    }


def _bar(now: Progress) -> list[tuple[str, float, float]]:
    """Return the segments of a progress bar of length 100: state, start and length."""
    pieces: list[tuple[str, float, float]] = []
    at = 0.0
    for name, count in (
        (TaskState.DONE, now.tasks_done),
        (TaskState.PARKED, now.tasks_parked),
        (TaskState.DEFERRED, now.tasks_deferred),
        (TaskState.QUEUED, now.queued),
    ):
        length = 100 * count / max(now.known, 1)
        pieces.append((name, round(at, 2), round(length, 2)))
        at += length
    return pieces


def _task(conn: Conn, viewer: Viewer, task: int) -> Mapping[str, Any]:
    authorization.require(conn, viewer.principal, "task", task)
    row = run_queries.tasks.one(conn, "task", task)
    payload = json.dumps(row["payload"], indent=2, ensure_ascii=False)
    return {
        "task": row,
        "account": account_queries.accounts.one(conn, "account", row["user_integration_id"]),
        "payload": payload[:MAX_SHOWN_CHARS],
        "editable": payload,
        "wrong": None,
        "above": run_tree.ancestors(conn, task)[:-1],
        "stopped": row["state"] in STOPPED_TASKS and row["retried_as"] is None,
    }
