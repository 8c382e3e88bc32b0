"""The actions on selected accounts: the buttons of the list of accounts."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from core.dashboard import rendering
from core.dashboard.pages.accounts import Done, ListFilters
from core.dashboard.session import ActionForm, Form, OperatingViewer, Viewer
from core.ledger.looks import wait_until_seen
from core.service import authorization
from core.service.accounts import actions as account_actions
from core.service.accounts import bulk
from core.service.backend import Backend
from core.service.runs import actions as run_actions
from core.web.dependencies import Engine
from core.web.problems import HttpProblem

router = APIRouter(prefix="/accounts")


@router.post("/resume-selected")
def resume_selected(
    engine: Engine, viewer: OperatingViewer, form: ActionForm, filters: ListFilters
) -> Response:
    """Resume the selected accounts. Those in error are checked with their providers first."""

    def resume(id: UUID) -> None:
        run_actions.count_request(engine, viewer.user_id)
        account_actions.resume(engine, id, user=viewer.user_id, authorize=viewer.still_valid)

    return _act(engine, viewer, form, filters, "resumed", resume)


@router.post("/pause-selected")
def pause_selected(
    engine: Engine, viewer: OperatingViewer, form: ActionForm, filters: ListFilters
) -> Response:
    """Pause the selected accounts."""

    def pause(id: UUID) -> None:
        account_actions.pause(engine, id, wait=False)

    response = _act(engine, viewer, form, filters, "paused", pause)
    wait_until_seen(engine.database)
    return response


@router.post("/sync-selected")
def sync_selected(
    engine: Engine, viewer: OperatingViewer, form: ActionForm, filters: ListFilters
) -> Response:
    """Start a run of each selected account, unless one is open."""

    def sync(id: UUID) -> None:
        run_actions.count_request(engine, viewer.user_id)
        run_actions.sync(engine, id)

    return _act(engine, viewer, form, filters, "synced", sync)


def _act(
    engine: Backend,
    viewer: Viewer,
    form: Form,
    filters: ListFilters,
    name: Done,
    act: Callable[[UUID], object],
) -> Response:
    """Act on the selected accounts that the viewer may see, and show the result."""

    def authorized(id: UUID) -> None:
        with engine.database.connection() as conn:
            authorization.require(conn, viewer.principal, "account", id)
        act(id)

    result = bulk.apply_to_ids(authorized, _selected(form))
    params = {
        "act": name, "done": result.done,
        "refused": result.refused or None, "more": result.more or None,
    }  # fmt: skip
    return RedirectResponse("/accounts" + rendering.query(**filters, **params), 303)


def _selected(form: Form) -> list[UUID]:
    """Return the ids of the selected accounts.

    Raises:
      HttpProblem: No account is selected, or a value is not a valid UUID.
    """
    try:
        ids = [UUID(text) for text in form.all("account")]
    except ValueError:
        ids = []
    if not ids:
        raise HttpProblem("no-account-selected")
    return ids
