"""Signing in with a token, and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from core.dashboard import rendering, session
from core.dashboard.session import Acted, Posted
from core.web.dependencies import Engine

router = APIRouter()


@router.get("/sign-in")
def sign_in_page(next: Annotated[str, Query(max_length=2_000)] = "/") -> Response:
    """Asks for a token."""
    return _page(session.own_path(next))


@router.post("/sign-in")
def sign_in(request: Request, engine: Engine, form: Posted) -> Response:
    """Begin a session."""
    onward = session.own_path(form.get("next") or "/")
    answer = RedirectResponse(onward, 303)
    # TLS may end at a proxy: then only the browser, or the settings, know of it.
    known = (engine.settings.public_url, str(request.url), request.headers.get("origin"))
    secure = any(one is not None and one.startswith("https:") for one in known)
    if session.sign_in(engine, answer, form.get("token").strip(), secure=secure):
        return answer
    return _page(onward, "This token is unknown, expired or revoked.", 401)


@router.post("/sign-out")
def sign_out(form: Acted) -> Response:
    """End it."""
    answer = RedirectResponse("/sign-in", 303)
    session.sign_out(answer)
    return answer


def _page(onward: str, wrong: str | None = None, status: int = 200) -> Response:
    return HTMLResponse(rendering.page("sign-in.html", {"next": onward, "wrong": wrong}), status)
