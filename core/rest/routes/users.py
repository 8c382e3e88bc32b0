"""`/v1/users`: the users who own accounts, and their use of the fleet."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from core.rest.routes import problems
from core.rest.schemas import Erased, Page, QuotaChange, UserDay, UserQuotas, UserUse
from core.service import quotas, use
from core.service.accounts import erase as account_erase
from core.states import Quota
from core.web.dependencies import NO_NUL, Engine
from core.web.permissions import Connector, FleetAdmin, StatusReader
from core.web.problems import HttpProblem

router = APIRouter(prefix="/v1/users", tags=["users"])

UserId = Annotated[
    str, Path(min_length=1, max_length=500, pattern=NO_NUL, description="The ID of the user")
]
Days = Annotated[
    int, Query(ge=1, le=use.MAX_DAYS, description="The number of days (UTC), today included")
]


@router.get("", responses=problems(401, 422))
def list_users(
    engine: Engine,
    principal: StatusReader,
    days: Days = 1,
    limit: Annotated[int, Query(ge=1, le=500, description="The maximum number of users")] = 50,
) -> Page[UserUse]:
    """List the users with the most thread-seconds in the latest days, the largest first.

    With a user's token, this is that user alone.
    """
    with engine.database.connection() as conn:
        rows = use.of_users(conn, days=days, user=principal.user_id, limit=limit)
    return Page[UserUse].model_validate({"items": rows, "cursor": None})


@router.get("/{user_id:path}/use", responses=problems(401, 403, 422))
def read_use(
    engine: Engine, principal: StatusReader, user_id: UserId, days: Days = 30
) -> Page[UserDay]:
    """Return the use of a user by day, the newest first. Days without use are left out."""
    if not principal.owns(user_id):
        raise HttpProblem("token-of-another-user")
    with engine.database.connection() as conn:
        rows = use.by_day(conn, user_id, days)
    return Page[UserDay].model_validate({"items": rows, "cursor": None})


@router.get("/{user_id:path}/quotas", responses=problems(401, 403, 422))
def read_quotas(engine: Engine, principal: StatusReader, user_id: UserId) -> UserQuotas:
    """Return the quotas of a user, and their use."""
    if not principal.owns(user_id):
        raise HttpProblem("token-of-another-user")
    with engine.database.connection() as conn:
        return UserQuotas.model_validate(quotas.of_user(conn, user_id))


@router.patch("/{user_id:path}/quotas", responses=problems(401, 403, 422))
def change_quotas(
    engine: Engine,
    principal: FleetAdmin,  # noqa: ARG001  for operators only
    user_id: UserId,
    body: QuotaChange,
) -> UserQuotas:
    """Change quotas of a user. This needs an operator's token.

    A user who has more than a quota keeps it. The user gets no further account, and no run begins;
    for bytes, open runs wait.
    """
    changes = {Quota(name): getattr(body, name) for name in body.model_fields_set}
    return UserQuotas.model_validate(quotas.change(engine, user_id, changes))


@router.delete("/{user_id:path}", responses=problems(401, 403, 422))
def erase_user(engine: Engine, principal: Connector, user_id: UserId) -> Erased:
    """Erase all data of a user: accounts, content, blobs and tokens.

    The tokens include that of this request, if it belongs to the user. The quotas that an operator
    has set for the user stay, and so does the number of runs of this day.

    Erasing a large amount of data takes a long time. After an interruption, send the request again
    to erase the rest.
    """
    if not principal.owns(user_id):
        raise HttpProblem("token-of-another-user")
    gone = account_erase.erase_user(engine, user_id)
    return Erased(accounts=gone.accounts, rows=gone.rows, blobs=gone.blobs)
