"""`/v1/audit`: the audit trail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from core.rest.routes import problems
from core.rest.schemas.access import AuditedAct, AuditedActs
from core.service import audit
from core.states import Act
from core.web.dependencies import (
    After,
    Engine,
    Limit,
    Since,
    Until,
    UserFilter,
    visible_user,
)
from core.web.permissions import AuditReader

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("", responses=problems(401, 403, 410, 422))
def read_audit_trail(
    engine: Engine,
    principal: AuditReader,
    user_id: UserFilter = None,
    act: Annotated[Act | None, Query(description="Return only acts of this kind")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    after: After = None,
) -> AuditedActs:
    """List acts after a cursor, the oldest first, with their authors.

    No act is missed, and none is listed twice. Without `after`, the list starts with the oldest
    act. With `after=latest`, it starts with the next one. Read pages until `more` is false, store
    the cursor, and continue from it at any time.

    A user's token lists the acts on that user's data. In the acts of others, `channel`, `actor`,
    `token_id`, `address` and `request_id` are then null.
    """
    visible_user(principal, user_id)
    audit_filter = audit.AuditFilter(
        user=principal.user_id, of_user=user_id, act=act, since=since, until=until
    )
    with engine.database.connection() as conn:
        found = audit.read(conn, engine.query_slots, audit_filter, after=after, limit=limit)
    return AuditedActs(
        acts=[AuditedAct.model_validate(row) for row in found.rows],
        cursor=found.cursor,
        more=found.more,
    )
