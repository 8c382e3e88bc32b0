"""Sign-in with a token, and sign-out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from core.dashboard import rendering, session
from core.dashboard.session import ActionForm, PostedForm
from core.web.dependencies import Engine

router = APIRouter()


@router.get("/sign-in")
def sign_in_page(next: Annotated[str, Query(max_length=2_000)] = "/") -> Response:
    """Show the sign-in form."""
    return _page(session.local_path(next))


@router.post("/sign-in")
def sign_in(request: Request, engine: Engine, form: PostedForm) -> Response:
    """Start a session."""
    next_path = session.local_path(form.get("next") or "/")
    response = RedirectResponse(next_path, 303)
    # If a proxy terminates TLS, only the settings and the browser's `Origin` show it.
    urls = (engine.settings.public_url, str(request.url), request.headers.get("origin"))
    secure = any(url is not None and url.startswith("https:") for url in urls)
    if session.sign_in(engine, response, form.get("token").strip(), secure=secure):
        return response
    return _page(next_path, "This token is unknown, expired or revoked.", 401)


@router.post("/sign-out")
def sign_out(form: ActionForm) -> Response:
    """End the session in this browser."""
    response = RedirectResponse("/sign-in", 303)
    session.sign_out(response)
    return response


def _page(next_path: str, wrong: str | None = None, status: int = 200) -> Response:
    return HTMLResponse(rendering.page("sign-in.html", {"next": next_path, "wrong": wrong}), status)
