"""The list of parked tasks, and the actions on selected or on all matching tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import RedirectResponse

from core.dashboard import query_filters, rendering
from core.dashboard.query_filters import Text
from core.dashboard.responses import Renderer
from core.dashboard.session import ActionForm, DetailViewer, Form, OperatingViewer, Viewer
from core.dashboard.wording import sentences
from core.db.pool import Conn
from core.errors import InvalidInput, NotFound
from core.service import times
from core.service.runs import parked
from core.service.runs.parked import BulkResult, ParkedFilter
from core.web.dependencies import MAX_ID, After, Engine
from core.web.problems import HttpProblem

router = APIRouter()

Count = Annotated[int | None, Query(ge=0, le=MAX_ID)]


def _filters(
    account: Text = "",
    domain: Text = "",
    type: Text = "",
    error: Text = "",
    reason: Text = "",
    since: Text = "",
) -> dict[str, str]:
    named = {"account": account, "domain": domain, "type": type, "error": error}
    return named | {"reason": reason, "since": since}


Filters = Annotated[dict[str, str], Depends(_filters)]


@router.get("/parked")
def list_parked(
    engine: Engine,
    viewer: DetailViewer,
    renderer: Renderer,
    filters: Filters,
    after: After = None,
    retried: Count = None,
    discarded: Count = None,
    refused: Count = None,
    more: bool = False,
) -> Response:
    """List the parked tasks that the viewer may see, the newest first.

    After a bulk action, the page also shows its result.
    """
    result = {"retried": retried, "discarded": discarded, "refused": refused or 0, "more": more}
    values = {
        "filters": filters,
        "result": result,
        "domains": query_filters.domains(engine, filters["domain"]),
    }
    empty = {"tasks": [], "groups": [], "number": 0, "cursor": None}

    def load(conn: Conn) -> Mapping[str, Any]:
        try:
            task_filter = _filter(conn, viewer, filters)
            page = parked.page(conn, engine.query_slots, task_filter, after=after)
            groups = parked.groups(conn, engine.query_slots, task_filter)
        except (InvalidInput, NotFound) as error:
            return values | empty | {"wrong": sentences(error)}
        number = parked.count(conn, engine.query_slots, task_filter)
        return values | {
            "tasks": page.rows,
            "groups": groups,
            "number": number,
            "cursor": page.cursor,
            "wrong": None,
        }

    return renderer.live("parked.html", load)


@router.post("/parked/retry")
def retry(engine: Engine, viewer: OperatingViewer, form: ActionForm, filters: Filters) -> Response:
    """Retry the selected tasks."""
    return _redirect_with_result(
        filters, "retried", parked.retry(engine, _selected_ids(form), viewer.user_id)
    )


@router.post("/parked/discard")
def discard(
    engine: Engine, viewer: OperatingViewer, form: ActionForm, filters: Filters
) -> Response:
    """Discard the selected tasks."""
    return _redirect_with_result(
        filters, "discarded", parked.discard(engine, _selected_ids(form), viewer.user_id)
    )


@router.post("/parked/retry-all")
# `ActionForm` checks the CSRF token.
def retry_all(
    engine: Engine, viewer: OperatingViewer, form: ActionForm, filters: Filters
) -> Response:
    """Retry all matching tasks."""
    with engine.database.connection() as conn:
        task_filter = _filter(conn, viewer, filters)
    return _redirect_with_result(filters, "retried", parked.retry_all(engine, task_filter))


@router.post("/parked/discard-all")
def discard_all(
    engine: Engine, viewer: OperatingViewer, form: ActionForm, filters: Filters
) -> Response:
    """Discard all matching tasks."""
    with engine.database.connection() as conn:
        task_filter = _filter(conn, viewer, filters)
    return _redirect_with_result(filters, "discarded", parked.discard_all(engine, task_filter))


def _filter(conn: Conn, viewer: Viewer, filters: Mapping[str, str]) -> ParkedFilter:
    return ParkedFilter(
        user=viewer.user_id,
        account=query_filters.find_account(conn, viewer, filters["account"]),
        domain=filters["domain"] or None,
        type=filters["type"] or None,
        error=filters["error"] or None,
        reason=filters["reason"] or None,
        since=times.past(filters["since"]) if filters["since"].strip() else None,
    )


def _selected_ids(form: Form) -> list[int]:
    ids = [int(id) for id in form.all("task") if id.isascii() and id.isdigit() and len(id) < 19]
    if not ids:
        raise HttpProblem("no-task-selected")
    return ids


def _redirect_with_result(filters: Mapping[str, str], action: str, result: BulkResult) -> Response:
    params = {action: result.done, "refused": result.refused or None, "more": result.more or None}
    return RedirectResponse("/parked" + rendering.query(**filters, **params), 303)
