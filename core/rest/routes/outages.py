"""`/v1/outages`: the integrations that do not answer."""

from __future__ import annotations

from fastapi import APIRouter

from core.rest.routes import problems
from core.rest.schemas.common import Page
from core.rest.schemas.integrations import Outage
from core.service.fleet import outages
from core.web.dependencies import Engine
from core.web.permissions import StatusReader

router = APIRouter(prefix="/v1/outages", tags=["integrations"])


@router.get("", responses=problems(401))
def list_outages(engine: Engine, principal: StatusReader) -> Page[Outage]:
    """List the outages of providers; with a user's token, outages of the user's accounts."""
    with engine.database.connection() as conn:
        found = outages.outages(conn, principal.user_id)
    return Page(
        items=[
            Outage(
                integration_domain=outage.domain,
                limit=outage.limit_name or None,
                since=outage.since,
                next_try=outage.next_try,
                accounts=outage.accounts,
                active_accounts=outage.active,
                tasks=outage.tasks,
                sentence=outage.sentence(outages.display_name(engine.registry, outage)),
            )
            for outage in found
        ],
        cursor=None,
    )
