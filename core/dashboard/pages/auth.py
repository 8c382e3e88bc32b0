"""Sign-in with a token, and sign-out in one browser or everywhere.

A person who signed in with the identity provider signs out there, too.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from core.dashboard import rendering, session
from core.dashboard.session import ActionForm, PostedForm, SignedIn
from core.dashboard.wording import sentences
from core.errors import NotFound, PollingError
from core.service import sessions
from core.service.backend import Backend
from core.service.sign_on import flow
from core.service.sign_on.provider import Provider
from core.web import session_cookie
from core.web.dependencies import Engine, wrong_tokens_of
from core.web.request_rates import Rate

REFUSALS_PER_SECOND = 1.0
"""The entries about refused sign-ins that one process writes to the audit trail."""

router = APIRouter()

SIGN_OUT_SECONDS = 3.0
"""The time that a sign-out waits for the identity provider. The session has ended by then."""


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
def sign_in_page(engine: Engine, next: Annotated[str, Query(max_length=2_000)] = "/") -> Response:
    """Show the sign-in form, and a link to the identity provider if there is one."""
    return page(engine, session.local_path(next))


@router.post("/sign-in")
async def sign_in(request: Request, engine: Engine, form: PostedForm) -> Response:
    """Open a session with a token."""
    next_path = session.local_path(form.get("next") or "/")
    public_url = engine.settings.public_url
    if not session_cookie.is_allowed(request, public_url):
        return page(engine, next_path, INSECURE, 403)
    before = session_cookie.read(request, public_url)
    id = await run_in_threadpool(_open_session, engine, form.get("token").strip(), before)
    if id is None:
        await record_refusal(engine)
        try:
            await wrong_tokens_of(request).refuse(request)
        except PollingError as problem:
            return page(engine, next_path, sentences(problem), problem.status)
        return page(engine, next_path, "This token is unknown, expired or revoked.", 401)
    response = RedirectResponse(next_path, 303)
    session_cookie.write(request, response, id, public_url)
    return response


async def record_refusal(engine: Backend, **detail: Any) -> None:
    """Count a refused sign-in, and record those since the last entry unless there are too many.

    Args:
      engine: The backend.
      **detail: The arguments of `sessions.record_refusals`.
    """
    if (number := _refusals.count()) is not None:
        await run_in_threadpool(_record_refusals, engine, number, **detail)


def _record_refusals(engine: Backend, number: int, **detail: Any) -> None:
    with engine.database.connection() as conn:
        sessions.record_refusals(conn, number, **detail)


def _open_session(engine: Backend, token: str, before: str | None) -> str | None:
    """Open a session, and end the browser's previous one."""
    with engine.database.connection() as conn:
        id = sessions.open_session(conn, token)
        if id is not None and before is not None:
            sessions.end_session(conn, before)
    return id


@router.post("/sign-out")
# `ActionForm` checks the CSRF token.
async def sign_out(
    request: Request, engine: Engine, viewer: SignedIn, form: ActionForm
) -> Response:
    """End the session in this browser, and then that at the identity provider."""
    id = session_cookie.read(request, engine.settings.public_url)
    if id is not None:
        await run_in_threadpool(_end_session, engine, id)
    if viewer.principal.person is None:
        return _signed_out()
    try:
        async with asyncio.timeout(SIGN_OUT_SECONDS):
            url = await flow.sign_out_url(engine, provider_of(request, engine))
    except (PollingError, TimeoutError):
        return _signed_out()
    if url is None:
        return _signed_out()
    # A form cannot lead to another site: see `POLICY`. A page can.
    response = HTMLResponse(rendering.page("signed-out.html", {"url": url}))
    session_cookie.delete(response)
    return response


def provider_of(request: Request, engine: Backend) -> Provider:
    """Return the identity provider of this server.

    Raises:
      NotFound: The operator has set none.
    """
    if engine.settings.oidc_issuer is None:
        raise NotFound("sign-on-not-offered")
    state = request.app.state
    if state.provider is None:
        state.provider = Provider(engine.settings)
    provider: Provider = state.provider
    return provider


def _end_session(engine: Backend, id: str) -> None:
    with engine.database.connection() as conn:
        sessions.end_session(conn, id)


@router.post("/sign-out-everywhere")
# `ActionForm` checks the CSRF token.
def sign_out_everywhere(engine: Engine, viewer: SignedIn, form: ActionForm) -> Response:
    """End all sessions of the user or the person, or of the operator's token."""
    with engine.database.connection() as conn:
        sessions.end_sessions(conn, viewer.principal)
    return _signed_out()


def _signed_out() -> Response:
    response = RedirectResponse("/sign-in", 303)
    session_cookie.delete(response)
    return response


def page(engine: Backend, next_path: str, wrong: str | None = None, status: int = 200) -> Response:
    """Return the page with the ways to sign in.

    Args:
      engine: The backend.
      next_path: The path that the browser opens after the sign-in.
      wrong: The reason why a sign-in failed. Default: none failed.
      status: The HTTP status.
    """
    values = {"next": next_path, "wrong": wrong, "issuer": engine.settings.oidc_issuer}
    return HTMLResponse(rendering.page("sign-in.html", values), status)
