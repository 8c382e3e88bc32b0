"""Pages for a person who returns from a provider. Most of them are not users of the dashboard."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from core.dashboard import rendering
from core.dashboard.pages.connect import REASONS
from core.dashboard.responses import redirect
from core.dashboard.session import PostedForm, find_viewer
from core.dashboard.wording import sentences
from core.errors import PollingError
from core.service.accounts import oauth
from core.service.accounts.oauth import FinishedAuthorization
from core.service.authorization import Authorize, always
from core.web.dependencies import NO_NUL, Engine
from core.web.provider_slots import provider_slot

router = APIRouter()

REDIRECT = {
    # The address contains a code.
    "Referrer-Policy": "no-referrer",
    # The page may be a window that the product has opened and waits for.
    "Cross-Origin-Opener-Policy": "unsafe-none",
}
"""Headers of the redirect to the product."""

Parameter = Annotated[str, Query(max_length=4_000, pattern=NO_NUL)]


@router.get(oauth.CALLBACK)
def returned(
    request: Request,
    engine: Engine,
    state: Parameter = "",
    code: Parameter | None = None,
    error: Parameter | None = None,
) -> Response:
    """Continue a connection: the provider redirects the browser here."""
    session, authorize = _session(engine, request)
    try:
        with provider_slot(engine, oauth.owner_of(engine, state)):
            done = oauth.finish(
                engine, state=state, code=code, error=error, session=session, authorize=authorize
            )
    except PollingError as problem:
        return _page("Not connected", sentences(problem), problem.status)
    if done.problem is not None:
        return _page("Not connected", sentences(done.problem), 400)
    if done.url is not None:
        return RedirectResponse(done.url, 303, headers=REDIRECT)
    if done.question is not None:
        return HTMLResponse(rendering.page("confirm.html", {"question": done.question}))
    return _result(done)


# The one-time code in the form is what proves that this browser returned from the provider.
@router.post("/oauth/confirm")
def confirm(request: Request, engine: Engine, form: PostedForm) -> Response:
    """Store the account that the person has confirmed."""
    session, authorize = _session(engine, request)
    try:
        code = form.get("code")
        with provider_slot(engine, oauth.owner_of(engine, code)):
            done = oauth.confirm(engine, code=code, session=session, authorize=authorize)
    except PollingError as problem:
        return _page("Not connected", sentences(problem), problem.status)
    if done.in_session and done.account is not None:
        return redirect(f"/accounts/{done.account}", "connected")
    return _result(done)


@router.post("/oauth/cancel")
def cancel(engine: Engine, form: PostedForm) -> Response:
    """Delete the credentials that the provider returned."""
    oauth.cancel(engine, code=form.get("code"))
    return _page("Not connected", "Nothing was stored. You can close this window.")


def _session(engine: Engine, request: Request) -> tuple[bytes | None, Authorize]:
    viewer = find_viewer(engine, request)
    return (None, always) if viewer is None else (viewer.session.digest, viewer.still_valid)


def _result(done: FinishedAuthorization) -> Response:
    if done.problem is not None:
        return _page("Not connected", sentences(done.problem), 400)
    if done.error is not None:
        reason = REASONS.get(done.error, REASONS["failed"])
        return _page("Not connected", f"{reason} Start again where you came from.", 400)
    return _page("Account connected", "You can close this window.")


def _page(title: str, detail: str, status: int = 200) -> Response:
    return HTMLResponse(rendering.page("message.html", {"title": title, "detail": detail}), status)
