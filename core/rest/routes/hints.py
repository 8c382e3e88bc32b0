"""`/v1/hints`: events that providers send."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from core.rest.routes import problems
from core.rest.routes.integrations import Domain
from core.service.accounts import webhooks
from core.web.dependencies import Engine
from core.web.problems import HttpProblem
from core.web.request_rates import Rate

REQUESTS_PER_SECOND = 100.0
"""Requests to the webhook of one integration, for each process. Providers send the rest again."""

ANY_QUERY = {
    "name": "query",
    "in": "query",
    "required": False,
    "description": "Any parameters: the plugin reads them",
    "style": "form",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}

router = APIRouter(prefix="/v1/hints", tags=["hints"])

_rate = Rate(REQUESTS_PER_SECOND)


@router.post(
    "/{integration_domain}",
    response_class=Response,
    response_description="The answer of the plugin, with its status",
    responses=problems(404, 413, 422, 429, 500, 503)
    | {"default": {"description": "The answer of the plugin, with its status"}},
    openapi_extra={"parameters": [ANY_QUERY], "security": []},
)
async def receive_hints(request: Request, engine: Engine, domain: Domain) -> Response:
    """Receive an event of a provider. The plugin checks the request's signature.

    The address for the provider's settings is `POLLING_PUBLIC_URL` with this path. The request
    needs no token. It makes accounts due, and no response contains anything about them.
    """
    if domain in engine.registry.integrations and not _rate.take(domain):
        raise HttpProblem("webhook-too-fast")
    body = await request.body()
    answer = await run_in_threadpool(
        webhooks.receive,
        engine,
        domain,
        body=body,
        headers={name.lower(): value for name, value in request.headers.items()},
        query=dict(request.query_params),
    )
    return Response(answer.body, answer.status, media_type=answer.content_type)
