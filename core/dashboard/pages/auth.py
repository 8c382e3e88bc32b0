"""Sign-in with a token, and sign-out in one browser or everywhere."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from core.dashboard import rendering, session
from core.dashboard.session import ActionForm, PostedForm, SignedIn
from core.dashboard.wording import sentences
from core.errors import PollingError
from core.service import sessions
from core.service.backend import Backend
from core.web import session_cookie
from core.web.dependencies import Engine, wrong_tokens_of
from core.web.request_rates import Rate

REFUSALS_PER_SECOND = 1.0
"""The entries about refused sign-ins that one process writes to the audit trail."""

router = APIRouter()


class Refusals:
    """The refused sign-ins of this process. Only the thread of the event loop uses it.

    Anybody can cause them, so an entry of the audit trail has the number of those since the one
    before.
    """

    def __init__(self) -> None:
        self._rate = Rate(REFUSALS_PER_SECOND, 0.0)
        self._unrecorded = 0

    def count(self) -> int | None:
        """Count a refused sign-in.

        Returns:
          The number of refused sign-ins to record now; None if a later one records this one.
        """
        self._unrecorded += 1
        if not self._rate.take(None):
            return None
        number, self._unrecorded = self._unrecorded, 0
        return number


_refusals = Refusals()

INSECURE = (
    "Without HTTPS, everybody on the network could read your session. Open the dashboard through"
    " its HTTPS address, or at 127.0.0.1 through a tunnel."
)


@router.get("/sign-in")
def sign_in_page(next: Annotated[str, Query(max_length=2_000)] = "/") -> Response:
    """Show the sign-in form."""
    return _page(session.local_path(next))


@router.post("/sign-in")
async def sign_in(request: Request, engine: Engine, form: PostedForm) -> Response:
    """Open a session with a token."""
    next_path = session.local_path(form.get("next") or "/")
    public_url = engine.settings.public_url
    if not session_cookie.is_allowed(request, public_url):
        return _page(next_path, INSECURE, 403)
    before = session_cookie.read(request, public_url)
    id = await run_in_threadpool(_open_session, engine, form.get("token").strip(), before)
    if id is None:
        if (number := _refusals.count()) is not None:
            await run_in_threadpool(_record_refusals, engine, number)
        try:
            await wrong_tokens_of(request).refuse(request)
        except PollingError as problem:
            return _page(next_path, sentences(problem), problem.status)
        return _page(next_path, "This token is unknown, expired or revoked.", 401)
    response = RedirectResponse(next_path, 303)
    session_cookie.write(request, response, id, public_url)
    return response


def _record_refusals(engine: Backend, number: int) -> None:
    with engine.database.connection() as conn:
        sessions.record_refusals(conn, number)


def _open_session(engine: Backend, token: str, before: str | None) -> str | None:
    """Open a session, and end the browser's previous one."""
    with engine.database.connection() as conn:
        id = sessions.open_session(conn, token)
        if id is not None and before is not None:
            sessions.end_session(conn, before)
    return id


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
