"""Answering a creation, with `Idempotency-Key` or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from core.service import idempotency
from core.service.authorization import Principal
from core.service.backend import Backend
from core.service.idempotency import RecordedResponse


def answer(status: int, body: BaseModel) -> RecordedResponse:
    """What a route comes to."""
    return RecordedResponse(status, body.model_dump(mode="json"))


def once(
    request: Request,
    backend: Backend,
    principal: Principal,
    key: str | None,
    body: bytes,
    act: Callable[[], RecordedResponse],
    location: Callable[[Any], str],
) -> JSONResponse:
    """Act, or answer as an earlier request with this key was answered.

    Parameters:
      location: From the answer's body to where what was created can be read.
    """
    if key is None:
        return _response(act(), location)
    whole = b"\0".join(
        [request.method.encode(), request.url.path.encode(), request.url.query.encode(), body]
    )
    return _response(idempotency.once(backend, principal.token_id, key, whole, act), location)


def _response(made: RecordedResponse, location: Callable[[Any], str]) -> JSONResponse:
    headers: Mapping[str, str] = {"Location": location(made.body)}
    if made.replayed:
        headers = {**headers, "Idempotency-Replayed": "true"}
    return JSONResponse(made.body, made.status, headers=dict(headers))
