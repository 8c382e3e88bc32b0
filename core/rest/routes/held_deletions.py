"""`/v1/held-deletions`: deletions that wait for a person."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from core.rest.routes import problems
from core.rest.schemas.common import Page
from core.rest.schemas.deletions import AcceptedDeletion, HeldDeletion, HeldItem
from core.service import authorization
from core.service.authorization import Principal
from core.service.backend import Backend
from core.service.content import deletions
from core.service.runs import actions as run_actions
from core.states import ShownHeldState
from core.web.dependencies import (
    AccountFilter,
    After,
    DeletionId,
    Engine,
    Limit,
    Order,
    Since,
    Until,
    UserFilter,
    visible_user,
)
from core.web.permissions import DetailReader, FleetOperator

router = APIRouter(prefix="/v1/held-deletions", tags=["held deletions"])


@router.get("", responses=problems(401, 403, 422))
def list_held_deletions(
    engine: Engine,
    principal: DetailReader,
    account: AccountFilter = None,
    user_id: UserFilter = None,
    state: Annotated[
        ShownHeldState | None, Query(description="Return only held deletions in this state")
    ] = None,
    since: Since = None,
    until: Until = None,
    order: Order = "newest",
    limit: Limit = 50,
    after: After = None,
) -> Page[HeldDeletion]:
    """List held deletions. `since` and `until` compare the time at which they were detected."""
    listing = deletions.deletions if order == "newest" else deletions.oldest
    with engine.database.connection() as conn:
        page = listing.page(
            conn,
            limit=limit,
            after=after,
            user_integration_id=account,
            user_id=visible_user(principal, user_id),
            state=state,
            held_since=since,
            held_until=until,
        )
    return Page[HeldDeletion].model_validate({"items": page.rows, "cursor": page.cursor})


@router.get("/{held_deletion_id}", responses=problems(401, 404, 422))
def get_held_deletion(
    engine: Engine, principal: DetailReader, deletion: DeletionId
) -> HeldDeletion:
    """Return a held deletion."""
    return HeldDeletion.model_validate(_row(engine, principal, deletion))


@router.get("/{held_deletion_id}/items", responses=problems(401, 404, 422))
def list_held_items(
    engine: Engine,
    principal: DetailReader,
    deletion: DeletionId,
    limit: Limit = 50,
    after: After = None,
) -> Page[HeldItem]:
    """List the items of a held deletion, descendants included, ordered by external ID."""
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "deletion", deletion)
        page = deletions.page_of_items(conn, deletion, limit=limit, after=after)
    return Page[HeldItem].model_validate({"items": page.rows, "cursor": page.cursor})


@router.post("/{held_deletion_id}/accept", responses=problems(401, 404, 422, 429))
def accept_held_deletion(
    engine: Engine, principal: FleetOperator, deletion: DeletionId
) -> AcceptedDeletion:
    """Accept a held deletion: delete exactly its items.

    The account's next run lists everything again, and deletes the items that are still missing.
    The engine holds other missing items again.
    """
    _row(engine, principal, deletion)
    run_actions.count_request(engine, principal.user_id)
    (decided,) = deletions.accept(engine, [deletion])
    return AcceptedDeletion.model_validate({**decided.row, "run_id": decided.run})


@router.post("/{held_deletion_id}/refuse", responses=problems(401, 404, 422))
def refuse_held_deletion(
    engine: Engine, principal: FleetOperator, deletion: DeletionId
) -> HeldDeletion:
    """Refuse a held deletion: keep its items. You can accept it later."""
    _row(engine, principal, deletion)
    (decided,) = deletions.refuse(engine, [deletion])
    return HeldDeletion.model_validate(decided.row)


def _row(engine: Backend, principal: Principal, deletion: int) -> dict[str, Any]:
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "deletion", deletion)
        return deletions.deletions.one(conn, "deletion", deletion)
