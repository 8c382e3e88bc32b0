"""The limits of integrations, their use, and the accounts that wait."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import ValidationError

from core.dashboard.responses import Renderer, redirect
from core.dashboard.session import ActionForm, FleetOperatingViewer, StatusViewer
from core.db.pool import Conn
from core.errors import InvalidInput
from core.field_problems import first_problem
from core.service.fleet import limits
from core.settings import LimitOverride
from core.web.dependencies import Engine

router = APIRouter()


@router.get("/limits")
def list_limits(engine: Engine, viewer: StatusViewer, renderer: Renderer) -> Response:
    """Show the limits. Users see the budgets that their accounts use."""

    def load(conn: Conn) -> dict[str, Any]:
        return {"limits": limits.in_use(engine, conn, viewer.user_id)}

    return renderer.live("limits.html", load)


@router.post("/limits")
# `ActionForm` checks the CSRF token, and `FleetOperatingViewer` the scope.
def change_limit(engine: Engine, viewer: FleetOperatingViewer, form: ActionForm) -> Response:
    """Change figures of a limit, or reset them."""
    domain, _, name = form.get("limit").partition("/")
    if form.get("reset"):
        limits.reset(engine, domain, name)
        return redirect("/limits", "limit-reset")
    given = {figure: form.get(figure) for figure in LimitOverride.model_fields}
    try:
        override = LimitOverride.model_validate({key: text for key, text in given.items() if text})
    except ValidationError as error:
        problem = first_problem(error)
        reason = f"{problem.place}: {problem.message}"
        raise InvalidInput("limit-figure-unknown", reason=reason) from None
    limits.change(engine, domain, name, override)
    engine.wake()
    return redirect("/limits", "limit-changed")
