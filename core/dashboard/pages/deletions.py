"""The list of held deletions, and the page on which a person decides on one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, Response

from core.dashboard import query_filters
from core.dashboard.query_filters import Text
from core.dashboard.responses import Renderer, redirect
from core.dashboard.session import ActionForm, DetailViewer, OperatingViewer, Viewer
from core.dashboard.wording import sentences
from core.db.pool import Conn
from core.errors import InvalidInput, NotFound
from core.service import authorization
from core.service.content import deletions
from core.service.runs import actions as run_actions
from core.states import ShownHeldState
from core.web.dependencies import After, DeletionId, Engine

router = APIRouter(prefix="/deletions")


@router.get("")
def list_deletions(
    engine: Engine,
    viewer: DetailViewer,
    renderer: Renderer,
    account: Text = "",
    state: ShownHeldState | Literal[""] = "",
    after: After = None,
) -> Response:
    """List the held deletions that the viewer may see, the newest first."""
    filters = {"account": account, "state": state}

    def load(conn: Conn) -> Mapping[str, Any]:
        values = {"filters": filters, "states": list(ShownHeldState), "wrong": None}
        try:
            page = deletions.deletions.page(
                conn,
                after=after,
                user_id=viewer.user_id,
                user_integration_id=query_filters.find_account(conn, viewer, account),
                state=state or None,
            )
        except (InvalidInput, NotFound) as error:
            return values | {"rows": [], "cursor": None, "wrong": sentences(error)}
        return values | {"rows": page.rows, "cursor": page.cursor}

    return renderer.live("deletions.html", load)


@router.get("/{held_deletion_id}")
def show_deletion(
    engine: Engine,
    viewer: DetailViewer,
    renderer: Renderer,
    deletion: DeletionId,
    after: After = None,
) -> Response:
    """Show the items that a held deletion would delete."""
    with engine.database.connection() as conn:
        authorization.require(conn, viewer.principal, "deletion", deletion)
        row = deletions.deletions.one(conn, "deletion", deletion)
        page = deletions.page_of_items(conn, deletion, after=after)
    return renderer.page(
        "deletion.html", {"deletion": row, "items": page.rows, "cursor": page.cursor}
    )


@router.post("/{held_deletion_id}/accept")
def accept(
    engine: Engine, viewer: OperatingViewer, deletion: DeletionId, form: ActionForm
) -> Response:
    """Accept a held deletion."""
    _require(engine, viewer, deletion)
    run_actions.count_request(engine, viewer.user_id)
    (decided,) = deletions.accept(engine, [deletion])
    flash = "deletions-accepted" if decided.run is not None else "deletions-accepted-later"
    return redirect("/deletions", flash)


@router.post("/{held_deletion_id}/refuse")
def refuse(
    engine: Engine, viewer: OperatingViewer, deletion: DeletionId, form: ActionForm
) -> Response:
    """Refuse a held deletion."""
    _require(engine, viewer, deletion)
    deletions.refuse(engine, [deletion])
    return redirect("/deletions", "deletions-refused")


def _require(engine: Engine, viewer: Viewer, deletion: int) -> None:
    with engine.database.connection() as conn:
        authorization.require(conn, viewer.principal, "deletion", deletion)
