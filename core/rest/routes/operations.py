"""Liveness, readiness and metrics, for operators and their tools."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from core.rest.metrics import Metrics
from core.rest.routes import problems
from core.rest.schemas.operations import Health
from core.service.fleet import health
from core.web.dependencies import Engine
from core.web.permissions import MetricsReader

router = APIRouter(tags=["operations"])

OPEN: dict[str, Any] = {"security": []}
"""A part of the document of a route that needs no token."""


@router.get("/healthz", openapi_extra=OPEN)
async def healthz() -> Health:
    """Report that this process answers.

    The check does not query the database, so that an outage of the database restarts no server.
    """
    return Health(status="ok", checks={})


@router.get(
    "/readyz",
    openapi_extra=OPEN,
    response_model=Health,
    responses={503: {"model": Health, "description": "This server cannot answer requests"}},
)
def readyz(engine: Engine) -> JSONResponse:
    """Report whether this server can answer requests.

    The status `degraded` means that it can, but that a check failed: for example, no worker runs,
    the scheduler is silent, or an account is overdue. The check `accounts` reports freshness; the
    other checks report liveness. For numbers, see `/metrics`.
    """
    checks = health.check(engine)
    ready = health.is_ready(checks)
    fine = all(standing == "ok" for standing in checks.values())
    status = "ok" if fine else "degraded" if ready else "unavailable"
    return JSONResponse(Health(status=status, checks=checks).model_dump(), 200 if ready else 503)


@router.get("/metrics", response_class=Response, responses=problems(401, 403) | {
    200: {
        "description": "Metrics in Prometheus's text format",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
})  # fmt: skip
def metrics(request: Request, principal: MetricsReader) -> Response:  # noqa: ARG001  for operators only
    """Return metrics for Prometheus.

    The scrape configuration sends an operator's token: `authorization: {credentials_file: …}`.
    """
    collector: Metrics = request.app.state.metrics
    return Response(collector.text(), media_type=collector.MEDIA_TYPE)
