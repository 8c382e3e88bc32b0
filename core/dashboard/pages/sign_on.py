"""Sign-in with the identity provider."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from core.dashboard import session
from core.dashboard.pages import auth
from core.dashboard.wording import sentences
from core.errors import NotFound, PollingError
from core.service import sessions
from core.service.authorization import Person
from core.service.backend import Backend
from core.service.sign_on import flow
from core.service.sign_on.provider import ProviderUnavailable
from core.web import session_cookie
from core.web.dependencies import NO_NUL, Engine
from core.web.problems import HttpProblem
from core.web.request_rates import Rate
from core.web.wrong_tokens import address_of

STARTS_PER_SECOND = 2.0
"""Requests of one address that may lead to calls to the provider, on average."""

STARTS_BURST_SECONDS = 30.0

log = logging.getLogger(__name__)

_starts = Rate(STARTS_PER_SECOND, STARTS_BURST_SECONDS)

router = APIRouter()

Parameter = Annotated[str, Query(max_length=4_000, pattern=NO_NUL)]


@router.get(flow.START)
async def begin(
    request: Request, engine: Engine, next: Annotated[str, Query(max_length=2_000)] = "/"
) -> Response:
    """Send the browser to the provider's sign-in page."""
    next_path, public_url = session.local_path(next), engine.settings.public_url
    if not session_cookie.is_allowed(request, public_url):
        return auth.page(engine, next_path, auth.INSECURE, 403)
    try:
        _count(request)
        url, cookie = await flow.start(engine, auth.provider_of(request, engine), next_path)
    except PollingError as problem:
        return auth.page(engine, next_path, sentences(problem), problem.status)
    response = RedirectResponse(url, 303, headers={"Referrer-Policy": "no-referrer"})
    session_cookie.write(
        request, response, cookie, public_url, session_cookie.SIGN_IN, flow.MINUTES
    )
    return response


@router.get(flow.CALLBACK)
async def signed_in(
    request: Request,
    engine: Engine,
    state: Parameter = "",
    code: Parameter | None = None,
    error: Parameter | None = None,
    iss: Parameter | None = None,
) -> Response:
    """Open a session: the provider redirects the browser here."""
    public_url = engine.settings.public_url
    cookie = session_cookie.read(request, public_url, session_cookie.SIGN_IN)
    before = session_cookie.read(request, public_url)
    response: Response
    try:
        _count(request)
        person, next_path = await flow.finish(
            engine,
            auth.provider_of(request, engine),
            cookie,
            flow.Returned(state, code, error, iss),
        )
    except PollingError as problem:
        is_refusal = not isinstance(problem, ProviderUnavailable | NotFound | HttpProblem)
        log.log(
            logging.INFO if is_refusal else logging.WARNING,
            "a sign-in with the identity provider failed: %s",
            problem,
        )
        if is_refusal:
            await auth.record_refusal(engine, **_refusal(engine, problem))
        response = auth.page(engine, "/", sentences(problem), problem.status)
    else:
        id = await run_in_threadpool(_open_session, engine, person, before)
        # The address of this page has the code.
        response = RedirectResponse(next_path, 303, headers={"Referrer-Policy": "no-referrer"})
        session_cookie.write(request, response, id, public_url)
    session_cookie.delete(response, session_cookie.SIGN_IN)
    return response


def _count(request: Request) -> None:
    """Count a request that may lead to a call to the provider.

    Raises:
      HttpProblem: The address sends too many.
    """
    if not _starts.take(address_of(request)):
        raise HttpProblem("address-too-fast")


def _refusal(engine: Backend, problem: PollingError) -> dict[str, str | None]:
    name = problem.fields.get("name")
    return {
        "name": None if name is None else str(name),
        "reason": problem.code,
        "issuer": engine.settings.oidc_issuer,
    }


def _open_session(engine: Backend, person: Person, before: str | None) -> str:
    """Open a session, and end the browser's previous one."""
    with engine.database.connection() as conn:
        id = sessions.open_session_of(conn, person)
        if before is not None:
            sessions.end_session(conn, before)
    return id
