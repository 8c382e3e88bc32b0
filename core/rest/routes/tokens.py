"""`/v1/tokens`: the tokens of the API."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response

from core.rest.routes import problems
from core.rest.schemas.access import CreatedToken, NewToken, Token
from core.rest.schemas.common import Page
from core.scopes import scopes_of
from core.service import tokens
from core.web.dependencies import After, Engine, Limit
from core.web.permissions import TokenAdmin

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])


@router.get("", responses=problems(401, 422))
def list_tokens(
    engine: Engine, principal: TokenAdmin, limit: Limit = 50, after: After = None
) -> Page[Token]:
    """List tokens, the oldest first. With a user's token, these are the tokens of that user."""
    with engine.database.connection() as conn:
        page = tokens.page(conn, principal, limit=limit, after=after)
    return Page[Token].model_validate({"items": page.rows, "cursor": page.cursor})


@router.post("", status_code=201, responses=problems(401, 413, 422))
def create_token(engine: Engine, principal: TokenAdmin, new: NewToken) -> CreatedToken:
    """Create a token. The response contains it; it cannot be shown again.

    The new token can do no more than the one that creates it, and expires no later.
    """
    with engine.database.connection() as conn:
        created = tokens.create_for(
            conn,
            principal,
            user_id=new.user_id,
            name=new.name,
            days=new.expires_in_days,
            scopes=[*new.scopes, *scopes_of(new.role)],
        )
    return CreatedToken(
        id=created.id,
        token=created.secret,
        scopes=list(created.scopes),
        expires_at=created.expires_at,
    )


@router.delete("/{token_id}", status_code=204, responses=problems(401, 404, 422))
def revoke_token(
    engine: Engine,
    principal: TokenAdmin,
    token: Annotated[UUID, Path(alias="token_id", description="The ID of the token")],
) -> Response:
    """Revoke a token immediately, with the sessions that it has opened."""
    with engine.database.connection() as conn:
        tokens.revoke(conn, token, user_id=principal.user_id)
    return Response(status_code=204)
