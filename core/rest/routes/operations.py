"""What operators and their tools ask: is it alive, is it ready, and how much of everything."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from core.rest.metrics import Metrics
from core.rest.routes import problems
from core.rest.schemas import Health
from core.service.fleet import health
from core.web.dependencies import Admin, Engine

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> Health:
    """Whether this process answers.

    It asks nobody else, so that a database that is away restarts no API.
    """
    return Health(status="ok", checks={})


@router.get(
    "/readyz",
    response_model=Health,
    responses={503: {"model": Health, "description": "Send requests elsewhere"}},
)
def readyz(engine: Engine) -> JSONResponse:
    """Whether requests can be answered here.

    `degraded`: they can, and something else needs a look: no worker, a silent scheduler, an account
    that is not polled. `accounts` tells freshness, the others liveness; figures are at `/metrics`.
    """
    checks = health.check(engine)
    ready = health.is_ready(checks)
    fine = all(standing == "ok" for standing in checks.values())
    status = "ok" if fine else "degraded" if ready else "unavailable"
    return JSONResponse(Health(status=status, checks=checks).model_dump(), 200 if ready else 503)


@router.get("/metrics", response_class=Response, responses=problems(401, 403) | {
    200: {"description": "Figures in Prometheus's text format", "content": {"text/plain": {}}}
})  # fmt: skip
def metrics(request: Request, principal: Admin) -> Response:  # noqa: ARG001  operators alone
    """Figures for Prometheus, which sends an operator's token: `authorization:
    {credentials_file: …}`.
    """
    collector: Metrics = request.app.state.metrics
    return Response(collector.text(), media_type=collector.MEDIA_TYPE)
