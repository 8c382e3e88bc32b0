"""`/v1/users`: the people whose accounts these are."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from core.rest.routes import problems
from core.rest.schemas import Erased
from core.service.accounts import erase as account_erase
from core.web.dependencies import NO_NUL, Authenticated, Engine
from core.web.problems import HttpProblem

router = APIRouter(prefix="/v1/users", tags=["users"])


@router.delete("/{user_id:path}", responses=problems(401, 403, 422))
def erase_user(
    engine: Engine,
    principal: Authenticated,
    user_id: Annotated[str, Path(min_length=1, max_length=500, pattern=NO_NUL)],
) -> Erased:
    """Erase all data of a person: accounts, content, blobs and tokens.

    This includes the token of this request, if it is the person's.

    It takes its time where there is much. Interrupted, it goes on when it is asked for again.
    """
    if not principal.owns(user_id):
        raise HttpProblem("token-of-another-user")
    gone = account_erase.erase_user(engine, user_id)
    return Erased(accounts=gone.accounts, rows=gone.rows, blobs=gone.blobs)
