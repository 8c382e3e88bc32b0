"""`/v1/oauth`: connecting accounts in a browser."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import PlainTextResponse, RedirectResponse

from core.rest.routes import problems
from core.rest.routes.user_integrations import owner
from core.rest.schemas import Authorization, NewAuthorization
from core.service import authorization
from core.service.accounts import oauth
from core.service.accounts import queries as account_queries
from core.web.dependencies import NO_NUL, Authenticated, Engine
from core.web.provider_slots import provider_slot

router = APIRouter(prefix="/v1/oauth", tags=["oauth"])

SECRETIVE = {"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
"""The address holds a code: it goes nowhere else."""


@router.post("/{domain}/authorize", status_code=201, responses=problems(401, 403, 404, 413, 422))
def start_authorization(
    engine: Engine,
    principal: Authenticated,
    domain: Annotated[str, Path(max_length=63, pattern=NO_NUL)],
    new: NewAuthorization,
) -> Authorization:
    """Begin a connection in a browser: send the person's browser to `url`.

    The link is for that person alone, works once, and expires in ten minutes.

    Whoever opens it connects *their* account to the user that it was made for, so give it to nobody
    but the person who is signed in to your product as this user.
    """
    if new.user_integration_id is not None:
        with engine.database.connection() as conn:
            authorization.require(conn, principal, "account", new.user_integration_id)
            row = account_queries.accounts.one(conn, "account", new.user_integration_id)
    user = owner(
        principal, new.user_id or (row["user_id"] if new.user_integration_id is not None else None)
    )
    begun = oauth.start(
        engine,
        domain,
        user_id=user,
        account=new.user_integration_id,
        name=new.name,
        config=new.config,
        interval_minutes=new.poll_interval_minutes,
        redirect_to=new.redirect_to,
        public_only=not principal.is_admin,
    )
    return Authorization(url=begun.url, expires_at=begun.expires_at)


@router.get(
    "/callback",
    response_class=Response,
    responses=problems(422)
    | {
        200: {
            "description": "Connected; nobody said where to go from here",
            "content": {"text/plain": {}},
        },
        303: {
            "description": "To `redirect_to`, with `user_integration_id` or `error` in its query"
        },
        400: {
            "description": "Not connected; nobody said where to go from here",
            "content": {"text/plain": {}},
        },
    },
)
def finish_authorization(
    engine: Engine,
    state: Annotated[str, Query(max_length=500, pattern=NO_NUL)],
    code: Annotated[str | None, Query(max_length=4_000, pattern=NO_NUL)] = None,
    error: Annotated[str | None, Query(max_length=500, pattern=NO_NUL)] = None,
) -> Response:
    """Where the provider sends the browser back.

    It needs no token: the state is the one of the flow that was begun.
    """
    with provider_slot(engine):
        done = oauth.finish(engine, state=state, code=code, error=error)
    if done.url is not None:
        return RedirectResponse(done.url, 303, headers=SECRETIVE)
    if done.account is None:
        return PlainTextResponse(
            f"Not connected: {done.error}. Begin again.", 400, headers=SECRETIVE
        )
    return PlainTextResponse("Connected. You may close this window.", headers=SECRETIVE)
