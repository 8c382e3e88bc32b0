"""Organizations: their list, the form that connects one, and their actions."""

from __future__ import annotations

import json
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Response

from core.dashboard.responses import Renderer, redirect
from core.dashboard.session import ActionForm, FleetOperatingViewer, Form
from core.dashboard.wording import sentences
from core.errors import InvalidInput, PollingError
from core.ledger.organizations import Changes
from core.service import organizations
from core.service.backend import Backend
from core.web.dependencies import Engine
from core.web.provider_slots import provider_slot

router = APIRouter(prefix="/organizations")

OrganizationId = Annotated[UUID, Path(alias="organization_id")]


@router.get("")
def list_organizations(
    engine: Engine, viewer: FleetOperatingViewer, renderer: Renderer
) -> Response:
    """Show organizations, and the form that connects one."""
    return _page(engine, renderer)


@router.post("")
def connect_organization(
    engine: Engine, viewer: FleetOperatingViewer, renderer: Renderer, form: ActionForm
) -> Response:
    """Connect an organization."""
    try:
        with provider_slot(engine, viewer.user_id):
            connected = organizations.connect(
                engine,
                form.get("domain"),
                name=form.get("name").strip(),
                credentials=_credentials(form),
                user_id=form.get("user").strip() or "default",
                listed=form.get("members").split() or None,
                excluded=form.get("excluded").split(),
                authorize=viewer.still_valid,
            )
    except PollingError as error:
        return _page(engine, renderer, form, wrong=sentences(error))
    flash = "organization-connected" if connected.is_new else "organization-updated"
    return _listed(connected.changes, flash)


@router.post("/{organization_id}/sync")
# `ActionForm` checks the CSRF token.
def list_members(
    engine: Engine,
    viewer: FleetOperatingViewer,
    renderer: Renderer,
    organization: OrganizationId,
    form: ActionForm,
) -> Response:
    """List the members of an organization now."""
    try:
        with provider_slot(engine, viewer.user_id):
            changes = organizations.sync(engine, organization)
    except PollingError as error:
        return _page(engine, renderer, wrong=sentences(error))
    return _listed(changes, "organization-listed")


@router.post("/{organization_id}/disconnect")
def disconnect_organization(
    engine: Engine,
    viewer: FleetOperatingViewer,
    organization: OrganizationId,
    form: ActionForm,
) -> Response:
    """Delete the credentials of an organization, and begin to disconnect its accounts."""
    organizations.disconnect(engine, organization)
    return redirect("/organizations", "organization-disconnected")


def _listed(changes: Changes, flash: str) -> Response:
    return redirect("/organizations", flash if changes.is_complete else "organization-listing")


def _credentials(form: Form) -> dict[str, Any]:
    try:
        values = json.loads(form.get("credentials"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InvalidInput("organization-credentials-invalid")
    return values


def _page(
    engine: Backend, renderer: Renderer, form: Form | None = None, *, wrong: str | None = None
) -> Response:
    with engine.database.connection() as conn:
        rows = organizations.listing(conn)
    values: dict[str, Any] = {
        "rows": [row | {"sentence": organizations.sentence(row)} for row in rows],
        "integrations": [integration.manifest for integration in organizations.supporting(engine)],
        "form": form or Form([("user", "default")]),
        "wrong": wrong,
    }
    return renderer.page("organizations.html", values, 422 if wrong else 200)
