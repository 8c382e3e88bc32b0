"""`/v1/integrations`: the installed integrations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from core.integration.base import Integration as Class
from core.plugins import Registry
from core.rest.routes import problems
from core.rest.schemas import Integration, Page
from core.web.dependencies import NO_NUL, Authenticated, Engine

router = APIRouter(prefix="/v1/integrations", tags=["integrations"])


@router.get("", responses=problems(401))
# Every valid token is accepted.
def list_integrations(engine: Engine, principal: Authenticated) -> Page[Integration]:  # noqa: ARG001
    """List the installed integrations, with the schemas of their config and credentials."""
    registry = engine.registry
    items = [
        _integration(registry, integration)
        for _, integration in sorted(registry.integrations.items())
    ]
    return Page(items=items, cursor=None)


@router.get("/{domain}", responses=problems(401, 404, 422))
def get_integration(
    engine: Engine,
    principal: Authenticated,  # noqa: ARG001
    domain: Annotated[
        str, Path(max_length=63, pattern=NO_NUL, description="The domain of the integration")
    ],
) -> Integration:
    """Return an installed integration."""
    return _integration(engine.registry, engine.registry.get(domain))


def _integration(registry: Registry, integration: Class) -> Integration:
    manifest = integration.manifest
    return Integration(
        domain=manifest.domain,
        name=manifest.name,
        version=registry.versions[manifest.domain],
        docs=manifest.docs,
        oauth=manifest.oauth is not None,
        config_schema=integration.config_model.model_json_schema(),
        credentials_schema=integration.credentials_model.model_json_schema(),
    )
