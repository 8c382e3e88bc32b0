"""`/v1/oauth`: connections in a browser."""

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
"""Headers that keep the address, which contains a code, from other sites and caches."""


@router.post("/{domain}/authorize", status_code=201, responses=problems(401, 403, 404, 413, 422))
def start_authorization(
    engine: Engine,
    principal: Authenticated,
    domain: Annotated[
        str, Path(max_length=63, pattern=NO_NUL, description="The domain of the integration")
    ],
    new: NewAuthorization,
) -> Authorization:
    """Start a connection in a browser: open the returned `url` in the user's browser.

    The link expires in ten minutes and works once.

    The person who opens the link connects *their* account to this user. Give it only to the person
    who is signed in to your product as this user.
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
        deletions=new.deletions,
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
            "description": "The account is connected, and the request had no `redirect_to`",
            "content": {"text/plain": {}},
        },
        303: {
            "description": (
                "A redirect to `redirect_to`, with the query parameter `user_integration_id` or"
                " `error`"
            )
        },
        400: {
            "description": "The connection failed, and the request had no `redirect_to`",
            "content": {"text/plain": {}},
        },
    },
)
def finish_authorization(
    engine: Engine,
    state: Annotated[
        str,
        Query(max_length=500, pattern=NO_NUL, description="The state of the started connection"),
    ],
    code: Annotated[
        str | None,
        Query(max_length=4_000, pattern=NO_NUL, description="The authorization code"),
    ] = None,
    error: Annotated[
        str | None,
        Query(max_length=500, pattern=NO_NUL, description="The provider's error code"),
    ] = None,
) -> Response:
    """Finish a connection: the provider redirects the browser here.

    The route needs no token, because `state` identifies the connection.
    """
    with provider_slot(engine):
        done = oauth.finish(engine, state=state, code=code, error=error)
    if done.url is not None:
        return RedirectResponse(done.url, 303, headers=SECRETIVE)
    if done.account is None:
        return PlainTextResponse(
            f"Connection failed: {done.error}. Start again.", 400, headers=SECRETIVE
        )
    return PlainTextResponse("Account connected. You can close this window.", headers=SECRETIVE)
