"""`/v1/users`: the users who own accounts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from core.rest.routes import problems
from core.rest.schemas import Erased
from core.service.accounts import erase as account_erase
from core.web.dependencies import NO_NUL, Engine
from core.web.permissions import Connector
from core.web.problems import HttpProblem

router = APIRouter(prefix="/v1/users", tags=["users"])


@router.delete("/{user_id:path}", responses=problems(401, 403, 422))
def erase_user(
    engine: Engine,
    principal: Connector,
    user_id: Annotated[
        str, Path(min_length=1, max_length=500, pattern=NO_NUL, description="The ID of the user")
    ],
) -> Erased:
    """Erase all data of a user: accounts, content, blobs and tokens.

    The tokens include that of this request, if it belongs to the user.

    Erasing a large amount of data takes a long time. After an interruption, send the request again
    to erase the rest.
    """
    if not principal.owns(user_id):
        raise HttpProblem("token-of-another-user")
    gone = account_erase.erase_user(engine, user_id)
    return Erased(accounts=gone.accounts, rows=gone.rows, blobs=gone.blobs)
