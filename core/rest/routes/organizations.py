"""`/v1/organizations`: one set of credentials for the accounts of all members."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response

from core.rest.routes import problems
from core.rest.schemas.common import Page
from core.rest.schemas.organizations import (
    MemberChanges,
    NewOrganization,
    Organization,
    OrganizationWithChanges,
)
from core.service import organizations
from core.web.dependencies import Engine
from core.web.permissions import FleetAdmin, still_valid
from core.web.provider_slots import provider_slot

router = APIRouter(prefix="/v1/organizations", tags=["organizations"])

OrganizationId = Annotated[
    UUID, Path(alias="organization_id", description="The ID of the organization")
]


@router.get("", responses=problems(401, 403))
# Organizations are the operator's.
def list_organizations(engine: Engine, principal: FleetAdmin) -> Page[Organization]:  # noqa: ARG001
    """List organizations, the oldest first. This needs an operator's token."""
    with engine.database.connection() as conn:
        rows = organizations.listing(conn)
    return Page[Organization].model_validate({"items": rows, "cursor": None})


@router.get("/{organization_id}", responses=problems(401, 403, 404, 422))
def get_organization(
    engine: Engine,
    principal: FleetAdmin,  # noqa: ARG001
    organization: OrganizationId,
) -> Organization:
    """Return an organization. This needs an operator's token."""
    with engine.database.connection() as conn:
        return Organization.model_validate(organizations.one(conn, organization))


@router.post("", status_code=201, responses=problems(401, 403, 404, 409, 413, 422, 429, 502))
def connect_organization(
    engine: Engine, principal: FleetAdmin, new: NewOrganization, response: Response
) -> OrganizationWithChanges:
    """List the members of an organization, and store an account for each.

    The engine checks one of the accounts first. If an organization of this integration and name
    exists, the request replaces all its values, and the status is 200. This needs an operator's
    token.
    """
    with provider_slot(engine, principal.user_id):
        connected = organizations.connect(
            engine,
            new.integration_domain,
            name=new.name,
            credentials=new.credentials,
            config=new.config,
            user_id=new.user_id,
            listed=new.members,
            excluded=new.excluded,
            interval_minutes=new.poll_interval_minutes,
            authorize=still_valid(principal),
        )
    if not connected.is_new:
        response.status_code = 200
    with engine.database.connection() as conn:
        row = organizations.one(conn, connected.id)
    return OrganizationWithChanges.model_validate(row | {"changes": asdict(connected.changes)})


@router.post("/{organization_id}/sync", responses=problems(401, 403, 404, 409, 422, 429, 502))
def sync_organization(
    engine: Engine, principal: FleetAdmin, organization: OrganizationId
) -> MemberChanges:
    """List the members now, and add, pause and resume accounts. This needs an operator's token."""
    with provider_slot(engine, principal.user_id):
        return MemberChanges.model_validate(asdict(organizations.sync(engine, organization)))


@router.delete(
    "/{organization_id}",
    status_code=204,
    response_description="The organization is being disconnected",
    responses=problems(401, 403, 404, 409, 422),
)
def disconnect_organization(
    engine: Engine,
    principal: FleetAdmin,  # noqa: ARG001
    organization: OrganizationId,
    content: Annotated[
        Literal["keep", "delete"],
        Query(
            description=(
                "`keep`: keep the accounts and their content. `delete`: delete the accounts with"
                " all their data, after a delay"
            )
        ),
    ] = "keep",
) -> None:
    """Delete the credentials of an organization, and disconnect all its accounts.

    After the response, no worker starts a task of the accounts. The engine then disconnects one
    account after the other, and deletes the organization after the last one: 10,000 accounts take
    about a minute. Until then, the organization has `ending_since`.

    With `content=delete`, the accounts are `erasing`, as after `DELETE
    /v1/user-integrations/{user_integration_id}`. Until their deletion begins, connect the
    organization again to restore them. This needs an operator's token.
    """
    organizations.disconnect(engine, organization, erases_accounts=content == "delete")
