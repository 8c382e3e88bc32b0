"""Sign-in with a token, and sign-out in one browser or everywhere."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from core.dashboard import rendering, session
from core.dashboard.session import ActionForm, PostedForm, SignedIn
from core.service import sessions
from core.web import session_cookie
from core.web.dependencies import Engine

router = APIRouter()

INSECURE = (
    "Without HTTPS, everybody on the network could read your session. Open the dashboard through"
    " its HTTPS address, or at 127.0.0.1 through a tunnel."
)


@router.get("/sign-in")
def sign_in_page(next: Annotated[str, Query(max_length=2_000)] = "/") -> Response:
    """Show the sign-in form."""
    return _page(session.local_path(next))


@router.post("/sign-in")
def sign_in(request: Request, engine: Engine, form: PostedForm) -> Response:
    """Open a session with a token."""
    next_path, public_url = session.local_path(form.get("next") or "/"), engine.settings.public_url
    response = RedirectResponse(next_path, 303)
    with engine.database.connection() as conn:
        before = session_cookie.read(request, public_url)
        id = sessions.open_session(conn, form.get("token").strip())
        if id is None:
            return _page(next_path, "This token is unknown, expired or revoked.", 401)
        if not session_cookie.write(request, response, id, public_url):
            sessions.end_session(conn, id)
            return _page(next_path, INSECURE, 403)
        if before is not None:
            sessions.end_session(conn, before)
    return response


@router.post("/sign-out")
def sign_out(request: Request, engine: Engine, form: ActionForm) -> Response:
    """End the session in this browser."""
    id = session_cookie.read(request, engine.settings.public_url)
    if id is not None:
        with engine.database.connection() as conn:
            sessions.end_session(conn, id)
    return _signed_out()


@router.post("/sign-out-everywhere")
# `ActionForm` checks the CSRF token.
def sign_out_everywhere(engine: Engine, viewer: SignedIn, form: ActionForm) -> Response:
    """End all sessions of the user, or of the operator's token."""
    with engine.database.connection() as conn:
        sessions.end_sessions(conn, viewer.principal)
    return _signed_out()


def _signed_out() -> Response:
    response = RedirectResponse("/sign-in", 303)
    session_cookie.delete(response)
    return response


def _page(next_path: str, wrong: str | None = None, status: int = 200) -> Response:
    return HTMLResponse(rendering.page("sign-in.html", {"next": next_path, "wrong": wrong}), status)
