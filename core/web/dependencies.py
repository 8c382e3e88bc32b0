"""Dependencies of routes: the backend, the principal, and common parameters."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from core.service import tokens
from core.service.authorization import Principal
from core.service.backend import Backend
from core.web.problems import HttpProblem
from core.web.request_rates import caller_of
from core.web.wrong_tokens import WrongTokens

bearer = HTTPBearer(auto_error=False, description="A token, with the scopes that the route needs.")


def _backend(request: Request) -> Backend:
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
        return principal
    if caller is not None:
        caller.rejected()
    await wrong_tokens_of(request).refuse(request)
    raise HttpProblem("token-invalid")


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

AccountId = Annotated[UUID, Path(description="The ID of the account.")]
RunId = Annotated[UUID, Path(description="The ID of the run.")]
TaskId = Annotated[int, Path(ge=1, le=MAX_ID, description="The ID of the task.")]
DeletionId = Annotated[int, Path(ge=1, le=MAX_ID, description="The ID of the held deletion.")]
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
    Query(max_length=63, pattern=NO_NUL, description="Return only items of this integration."),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description=(
            "A unique key for this request. If a request with the same key is sent again within 24"
            " hours, the first response is returned and nothing is done twice."
        ),
    ),
]


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
