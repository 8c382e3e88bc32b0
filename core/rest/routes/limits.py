"""`/v1/limits`: the limits of providers, their use, and the accounts that wait."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from core.rest.routes import problems
from core.rest.routes.integrations import Domain
from core.rest.schemas.common import Page
from core.rest.schemas.limits import LimitChange, ProviderLimit
from core.service.fleet import limits
from core.web.dependencies import NO_NUL, Engine
from core.web.permissions import FleetAdmin, StatusReader

router = APIRouter(prefix="/v1/limits", tags=["integrations"])

LimitName = Annotated[
    str, Path(max_length=200, pattern=NO_NUL, description="The name of the limit.")
]


@router.get("", responses=problems(401))
def list_limits(engine: Engine, principal: StatusReader) -> Page[ProviderLimit]:
    """List the limits of all integrations, each with its budgets in use.

    With a user's token, the budgets are those that the user's accounts use.
    """
    with engine.database.connection() as conn:
        found = limits.in_use(engine, conn, principal.user_id)
    return Page(items=[ProviderLimit.of(use) for use in found], cursor=None)


@router.patch("/{integration_domain}/{limit_name}", responses=problems(401, 403, 404, 422))
def change_limit(
    engine: Engine,
    principal: FleetAdmin,  # noqa: ARG001  for operators only
    integration_domain: Domain,
    limit_name: LimitName,
    body: LimitChange,
) -> ProviderLimit:
    """Change figures of a limit. This needs an operator's token.

    The fleet applies them within seconds, without a restart. They replace those of `POLLING_LIMITS`
    until they are reset.
    """
    return ProviderLimit.of(limits.change(engine, integration_domain, limit_name, body.override()))


@router.delete("/{integration_domain}/{limit_name}", responses=problems(401, 403, 404, 422))
def reset_limit(
    engine: Engine,
    principal: FleetAdmin,  # noqa: ARG001  for operators only
    integration_domain: Domain,
    limit_name: LimitName,
) -> ProviderLimit:
    """Restore the figures of `POLLING_LIMITS`, or the figures of the plugin. Returns them."""
    return ProviderLimit.of(limits.reset(engine, integration_domain, limit_name))
