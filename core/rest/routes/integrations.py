"""`/v1/integrations`: the installed integrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path

from core.integration.base import Integration as Class
from core.integration.rehearsal import Rehearsal as PluginRehearsal
from core.ledger.pauses import Pause
from core.plugins import Registry
from core.rest.routes import problems
from core.rest.schemas.accounts import Checked, Identity, NewCheck, Rehearsal
from core.rest.schemas.common import Page
from core.rest.schemas.integrations import Integration, IntegrationPause
from core.results.text import sanitize
from core.service.accounts import actions as account_actions
from core.service.backend import Backend
from core.service.fleet import pauses
from core.web.dependencies import NO_NUL, Engine
from core.web.permissions import Connector, FleetAdmin, StatusReader
from core.web.provider_slots import provider_slot

Domain = Annotated[
    str,
    Path(
        alias="integration_domain",
        max_length=63,
        pattern=NO_NUL,
        description="The domain of the integration",
    ),
]

router = APIRouter(prefix="/v1/integrations", tags=["integrations"])


@router.get("", responses=problems(401))
# Every valid token is accepted.
def list_integrations(engine: Engine, principal: StatusReader) -> Page[Integration]:  # noqa: ARG001
    """List the installed integrations, with the schemas of their config and credentials."""
    with engine.database.connection() as conn:
        paused = pauses.lasting(conn)
    registry = engine.registry
    items = [
        _integration(registry, integration, paused)
        for _, integration in sorted(registry.integrations.items())
    ]
    return Page(items=items, cursor=None)


@router.get("/{integration_domain}", responses=problems(401, 404, 422))
def get_integration(
    engine: Engine,
    principal: StatusReader,  # noqa: ARG001
    domain: Domain,
) -> Integration:
    """Return an installed integration."""
    return _read(engine, domain)


@router.post("/{integration_domain}/pause", responses=problems(401, 403, 404, 422))
def pause_integration(
    engine: Engine,
    principal: FleetAdmin,  # noqa: ARG001  for operators only
    domain: Domain,
    body: IntegrationPause | None = None,
) -> Integration:
    """Pause all accounts of an integration.

    Running tasks finish. No new task starts. The accounts keep their own state. A second call
    changes the end of the pause.
    """
    pauses.pause(engine, domain, None if body is None else body.until)
    return _read(engine, domain)


@router.post("/{integration_domain}/resume", responses=problems(401, 403, 404, 409, 422))
def resume_integration(
    engine: Engine,
    principal: FleetAdmin,  # noqa: ARG001  for operators only
    domain: Domain,
) -> Integration:
    """Resume a paused integration. Its accounts become due, spread over their intervals."""
    pauses.resume(engine, domain)
    return _read(engine, domain)


@router.post("/{integration_domain}/check", responses=problems(401, 403, 404, 413, 422, 429, 502))
def check_new_account(
    engine: Engine, principal: Connector, domain: Domain, new: NewCheck
) -> Checked:
    """Check an account with its provider, describe its copy, and store nothing."""
    with provider_slot(engine, principal.user_id):
        checked = account_actions.identify(
            engine,
            domain,
            config=new.config,
            credentials=new.credentials,
            public_only=not principal.is_admin,
        )
    identity = checked.identity
    return Checked(
        identity=Identity(id=sanitize(identity.id) or "", name=sanitize(identity.name) or ""),
        notice=sanitize(identity.notice),
        rehearsal=shown_rehearsal(checked.rehearsal),
    )


def shown_rehearsal(rehearsal: PluginRehearsal) -> Rehearsal:
    """Return a rehearsal in the form of a response."""
    return Rehearsal.model_validate(asdict(rehearsal))


def _read(engine: Backend, domain: str) -> Integration:
    integration = engine.registry.get(domain)
    with engine.database.connection() as conn:
        return _integration(engine.registry, integration, pauses.lasting(conn))


def _integration(
    registry: Registry, integration: Class, paused: Mapping[str, Pause]
) -> Integration:
    manifest = integration.manifest
    pause = paused.get(manifest.domain)
    return Integration(
        integration_domain=manifest.domain,
        name=manifest.name,
        version=registry.versions[manifest.domain],
        docs=manifest.docs,
        oauth=manifest.oauth is not None,
        paused_at=pause and pause.since,
        paused_until=pause and pause.until,
        config_schema=integration.config_model.model_json_schema(),
        credentials_schema=integration.credentials_model.model_json_schema(),
    )
