"""Dependencies of routes: the backend, the principal, and common parameters."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from core.service import tokens
from core.service.authorization import Principal
from core.service.backend import Backend
from core.web.problems import HttpProblem

bearer = HTTPBearer(auto_error=False, description="A token from the operator.")


def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


Engine = Annotated[Backend, Depends(_backend)]


def authenticated(
    engine: Engine, bearer_token: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
) -> Principal:
    """Authenticate the request.

    Raises:
      HttpProblem: The token is missing, unknown, expired or revoked.
    """
    if bearer_token is not None:
        with engine.database.connection() as conn:
            principal = tokens.authenticate(conn, bearer_token.credentials)
        if principal is not None:
            return principal
        raise HttpProblem("token-invalid")
    raise HttpProblem("token-missing")


Authenticated = Annotated[Principal, Depends(authenticated)]


def admin(principal: Authenticated) -> Principal:
    """Require an operator's token.

    Raises:
      HttpProblem: The token belongs to a user.
    """
    if not principal.is_admin:
        raise HttpProblem("operator-only")
    return principal


Admin = Annotated[Principal, Depends(admin)]

NO_NUL = r"^[^\x00]*$"
MAX_ID = 2**63 - 1

AccountId = Annotated[UUID, Path(description="The user integration's id.")]
RunId = Annotated[UUID, Path(description="The run's id.")]
TaskId = Annotated[int, Path(ge=1, le=MAX_ID, description="The task's id.")]
ContentId = Annotated[int, Path(ge=1, le=MAX_ID, description="The content's id.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]
After = Annotated[
    str | None,
    Query(
        max_length=20_000,
        pattern=NO_NUL,
        description="The `cursor` of the page before. Default: the first page.",
    ),
]
UserFilter = Annotated[
    str | None,
    Query(
        max_length=500,
        pattern=NO_NUL,
        description="Only of this user. A user's token sees its own anyway.",
    ),
]
DomainFilter = Annotated[
    str | None, Query(max_length=63, pattern=NO_NUL, description="Only of this integration.")
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description=(
            "A key of your own for this one request: sent again within a day, it is answered as the"
            " first time."
        ),
    ),
]


def visible_user(principal: Principal, user: str | None) -> str | None:
    """Return the user whose rows a listing shows: with a user's token, always that user.

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
