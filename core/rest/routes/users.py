"""`/v1/users`: the users who own accounts, and their use of the fleet."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from starlette.convertors import Convertor, register_url_convertor

from core.rest.routes import problems
from core.rest.schemas.accounts import Erased
from core.rest.schemas.common import Page
from core.rest.schemas.users import QuotaChange, UserDay, UserQuotas, UserUse
from core.service import quotas, use
from core.service.accounts import erase as account_erase
from core.states import Quota
from core.web.dependencies import NO_NUL, After, Engine, Limit
from core.web.permissions import Connector, FleetAdmin, StatusReader
from core.web.problems import HttpProblem


class ErasedUser(Convertor[str]):
    """The ID of a user in the path of an erasure. It may contain slashes.

    `DELETE /v1/users/ann/quotas` would otherwise erase the user `ann/quotas`.
    """

    regex = r".+(?<!/use)(?<!/quotas)"

    def convert(self, value: str) -> str:
        """Return the ID."""
        return value

    def to_string(self, value: str) -> str:
        """Return the part of the path."""
        return value


register_url_convertor("erased_user", ErasedUser())

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
    sort: Annotated[
        Literal["thread_seconds", "polls", "tasks", "bytes_in", "bytes_kept", "user_id"],
        Query(description="`user_id`, or the number whose largest values come first"),
    ] = "thread_seconds",
    limit: Limit = 50,
    after: After = None,
) -> Page[UserUse]:
    """List the users whose accounts used the fleet in the latest days.

    With a user's token, this is that user alone.
    """
    with engine.database.connection() as conn:
        page = use.of_users(
            conn, days=days, user=principal.user_id, sort=sort, limit=limit, after=after
        )
    return Page[UserUse].model_validate({"items": page.rows, "cursor": page.cursor})


@router.get("/{user_id:path}/use", responses=problems(401, 403, 404, 422))
def read_use(
    engine: Engine, principal: StatusReader, user_id: UserId, days: Days = 30
) -> Page[UserDay]:
    """Return the use of a user by day, the newest first. Days without use are left out."""
    if not principal.owns(user_id):
        raise HttpProblem("token-of-another-user")
    with engine.database.connection() as conn:
        rows = use.by_day(conn, user_id, days)
    return Page[UserDay].model_validate({"items": rows, "cursor": None})


@router.get("/{user_id:path}/quotas", responses=problems(401, 403, 404, 422))
def read_quotas(engine: Engine, principal: StatusReader, user_id: UserId) -> UserQuotas:
    """Return the quotas of a user, and their use."""
    if not principal.owns(user_id):
        raise HttpProblem("token-of-another-user")
    with engine.database.connection() as conn:
        return UserQuotas.model_validate(quotas.of_user(conn, user_id))


@router.patch("/{user_id:path}/quotas", responses=problems(401, 403, 404, 422))
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


@router.delete("/{user_id:erased_user}", responses=problems(401, 403, 404, 422))
def erase_user(
    engine: Engine,
    principal: Connector,
    user_id: UserId,
    now: Annotated[
        bool, Query(description="Delete the data immediately, without the delay")
    ] = False,
) -> Erased:
    """Erase all data of a user: accounts, content, blobs and tokens.

    All accounts are `erasing`: nothing of them is shown any more except the accounts themselves.
    They are deleted `POLLING_ERASE_AFTER_MINUTES` later, and the tokens with the last one. New
    credentials restore an account until then. A user with a restored or a new account stays.

    The tokens include that of this request, if it belongs to the user. The quotas that an operator
    has set for the user stay, and so does the number of runs of this day.

    With `now`, erasing a large amount of data takes a long time. After an interruption, send the
    request again to erase the rest.
    """
    if not principal.owns(user_id):
        raise HttpProblem("token-of-another-user")
    erase = account_erase.erase_user if now else account_erase.hide_user
    gone = erase(engine, user_id)
    return Erased(hidden=gone.hidden, accounts=gone.accounts, rows=gone.rows, blobs=gone.blobs)
