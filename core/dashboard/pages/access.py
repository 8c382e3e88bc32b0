"""The viewer's access: the scopes and the end of sessions, and tokens."""

from __future__ import annotations

import math
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Response

from core.dashboard.responses import Renderer, redirect
from core.dashboard.session import ActionForm, Form, SignedIn, TokenViewer, Viewer
from core.dashboard.wording import sentences
from core.errors import PollingError
from core.scopes import MAX_TOKEN_DAYS, Role, Scope, in_order, role_named, scopes_of
from core.service import tokens
from core.service.backend import Backend
from core.service.tokens import CreatedToken
from core.web.dependencies import After, Engine

router = APIRouter(prefix="/access")

DEFAULT_DAYS = "90"
ROWS = 100


@router.get("")
def access(engine: Engine, viewer: SignedIn, renderer: Renderer, after: After = None) -> Response:
    """Show the scopes of the viewer, and the tokens that the viewer may revoke."""
    return _page(engine, viewer, renderer, after=after)


@router.post("/tokens")
def create_token(
    engine: Engine, viewer: TokenViewer, renderer: Renderer, form: ActionForm
) -> Response:
    """Create a token, and show it once."""
    try:
        created = _create(engine, viewer, form)
    except PollingError as problem:
        return _page(engine, viewer, renderer, form, wrong=sentences(problem))
    if created is None:
        wrong = f"Days: enter a number from 1 to {MAX_TOKEN_DAYS:,}, or nothing."
        return _page(engine, viewer, renderer, form, wrong=wrong)
    return _page(engine, viewer, renderer, created=created)


@router.post("/tokens/{token}/revoke")
# `ActionForm` checks the CSRF token.
def revoke_token(
    engine: Engine,
    viewer: TokenViewer,
    form: ActionForm,
    token: Annotated[UUID, Path()],
) -> Response:
    """Revoke a token, with the sessions that it has opened."""
    with engine.database.connection() as conn:
        tokens.revoke(conn, token, user_id=viewer.user_id)
    return redirect("/access", "token-revoked")


def _create(engine: Backend, viewer: Viewer, form: Form) -> CreatedToken | None:
    """Create the token of a form; return None if its number of days is invalid."""
    days: float | None = None
    if text := form.get("days").strip():
        try:
            days = float(text)
        except ValueError:
            return None
        if not (math.isfinite(days) and 0 < days <= MAX_TOKEN_DAYS):
            return None
    with engine.database.connection() as conn:
        return tokens.create_for(
            conn,
            viewer.principal,
            user_id=form.get("user").strip() or None,
            name=form.get("name").strip(),
            days=days,
            scopes=scopes_of(role_named(form.get("role"))) or in_order(form.all("scopes")),
            authorize=viewer.still_valid,
        )


def _page(
    engine: Backend,
    viewer: Viewer,
    renderer: Renderer,
    form: Form | None = None,
    *,
    created: CreatedToken | None = None,
    wrong: str | None = None,
    after: str | None = None,
) -> Response:
    form = form or Form([("days", DEFAULT_DAYS)])
    values: dict[str, Any] = {"form": form, "created": created, "wrong": wrong, "page": None}
    if viewer.manages_tokens:
        with engine.database.connection() as conn:
            values["page"] = tokens.page(conn, viewer.principal, limit=ROWS, after=after)
    values["roles"] = [
        role for role in Role if set(scopes_of(role)) <= set(viewer.principal.scopes)
    ]
    values["chosen"] = set(form.all("scopes")) or {Scope.CONTENT_READ}
    return renderer.page("access.html", values, 422 if wrong else 200)
