"""What routes ask for: the backend, who is asking, and parameters that many of them take."""

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
    engine: Engine, given: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
) -> Principal:
    """Who asks.

    Raises:
      Refused: There is no token, or it is none of ours, expired or revoked.
    """
    if given is not None:
        with engine.database.connection() as conn:
            found = tokens.authenticate(conn, given.credentials)
        if found is not None:
            return found
        raise HttpProblem("token-invalid")
    raise HttpProblem("token-missing")


Authenticated = Annotated[Principal, Depends(authenticated)]


def admin(who: Authenticated) -> Principal:
    """An operator.

    Raises:
      Refused: It is a user.
    """
    if not who.is_admin:
        raise HttpProblem("operator-only")
    return who


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


def seen_user(who: Principal, wanted: str | None) -> str | None:
    """The user a listing is narrowed to: for a user's token always its own.

    Raises:
      Refused: It asks for another user's.
    """
    if who.user_id is not None and wanted is not None and wanted != who.user_id:
        raise HttpProblem("token-of-another-user")
    return who.user_id or wanted


async def raw_body(request: Request) -> bytes:
    """The body as it was sent."""
    return await request.body()


RawBody = Annotated[bytes, Depends(raw_body)]
