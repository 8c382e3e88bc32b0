"""Dependencies of routes: the backend, the principal, and common parameters."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends, Path, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from core.ledger.audit import Actor, set_actor
from core.service import tokens
from core.service.authorization import Principal
from core.service.backend import Backend
from core.states import Channel
from core.web.problems import HttpProblem
from core.web.request_rates import caller_of
from core.web.timestamps import Timestamp
from core.web.wrong_tokens import WrongTokens

bearer = HTTPBearer(auto_error=False, description="A token, with the scopes that the route needs.")


async def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


Engine = Annotated[Backend, Depends(_backend)]


async def authenticated(
    request: Request,
    engine: Engine,
    bearer_token: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> Principal:
    """Authenticate the request.

    Raises:
      HttpProblem: The token is missing, unknown, expired or revoked, or its user sends too many
        requests.
    """
    if bearer_token is None:
        raise HttpProblem("token-missing")
    token, caller = bearer_token.credentials, caller_of(request)
    principal = await run_in_threadpool(_principal, engine, token)
    if principal is not None and caller is not None and await caller.authenticated(principal):
        principal = await run_in_threadpool(_principal, engine, token)
    if principal is not None:
        act_as(Channel.API, principal, request)
        return principal
    if caller is not None:
        caller.rejected()
    await wrong_tokens_of(request).refuse(request)
    raise HttpProblem("token-invalid")


def act_as(channel: Channel, principal: Principal, request: Request) -> None:
    """Name the author of the acts of a request."""
    address = request.client.host if request.client is not None else None
    set_actor(
        Actor(
            channel,
            name=principal.name,
            token_id=principal.token_id,
            user_id=principal.user_id,
            address=address,
        )
    )


def _principal(engine: Backend, token: str) -> Principal | None:
    with engine.database.connection() as conn:
        return tokens.authenticate(conn, token)


def wrong_tokens_of(request: Request) -> WrongTokens:
    """Return the wrong tokens that this server has received."""
    wrong_tokens: WrongTokens = request.app.state.wrong_tokens
    return wrong_tokens


Authenticated = Annotated[Principal, Depends(authenticated)]


NO_NUL = r"^[^\x00]*$"
MAX_ID = 2**63 - 1

AccountId = Annotated[UUID, Path(alias="user_integration_id", description="The ID of the account.")]
RunId = Annotated[UUID, Path(alias="run_id", description="The ID of the run.")]
TaskId = Annotated[int, Path(alias="task_id", ge=1, le=MAX_ID, description="The ID of the task.")]
DeletionId = Annotated[
    int,
    Path(alias="held_deletion_id", ge=1, le=MAX_ID, description="The ID of the held deletion."),
]
ContentId = Annotated[int, Path(ge=1, le=MAX_ID, description="The ID of the content item.")]
Limit = Annotated[
    int,
    Query(
        ge=1,
        le=1000,
        description=(
            "Maximum number of items to return. A page of large items ends earlier, with a cursor."
        ),
    ),
]
After = Annotated[
    str | None,
    Query(
        max_length=20_000,
        pattern=NO_NUL,
        description="The `cursor` of the previous page. Default: the first page.",
    ),
]
UserFilter = Annotated[
    str | None,
    Query(
        max_length=500,
        pattern=NO_NUL,
        description=(
            "Return only items of this user. A user's token always returns only that user's items."
        ),
    ),
]
DomainFilter = Annotated[
    str | None,
    Query(
        alias="integration_domain",
        max_length=63,
        pattern=NO_NUL,
        description="Return only items of this integration.",
    ),
]
AccountFilter = Annotated[
    UUID | None,
    Query(alias="user_integration_id", description="Return only items of this account."),
]
Since = Annotated[Timestamp | None, Query(description="Return only items of this time or later")]
Until = Annotated[Timestamp | None, Query(description="Return only items before this time")]
Order = Annotated[Literal["newest", "oldest"], Query(description="The items that are listed first")]


def visible_user(principal: Principal, user: str | None) -> str | None:
    """Return the user whose rows a listing shows. With a user's token, it is always that user.

    Raises:
      HttpProblem: A user's token asks for the rows of another user.
    """
    if principal.user_id is not None and user is not None and user != principal.user_id:
        raise HttpProblem("token-of-another-user")
    return principal.user_id or user


async def raw_body(request: Request) -> bytes:
    """Return the raw body of the request."""
    return await request.body()


RawBody = Annotated[bytes, Depends(raw_body)]
