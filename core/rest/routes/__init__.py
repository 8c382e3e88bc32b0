"""The routes, one module per resource."""

from __future__ import annotations

from typing import Any

from core.web.problems import MEDIA_TYPE

_MEANINGS = {
    400: "The request cannot be read",
    401: "The token is missing, unknown, expired or revoked",
    403: "The token does not allow this",
    404: "The object does not exist, or belongs to another user",
    409: "The current state does not allow this",
    410: "The cursor is outdated or expired; start again without one",
    412: "The object has changed since the client read it",
    413: "The body is too large",
    416: "The item has no such bytes",
    422: "The request is invalid",
    429: "Too many requests of this kind, or too many invalid tokens",
    500: "The plugin could not read the request",
    502: "The provider is unavailable",
    503: "The server is busy, or the database is unavailable",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the problems that a route may respond with, for the OpenAPI document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    # A route with a body may receive one that cannot be read.
    documented = {*statuses, 503} | ({400} if 413 in statuses else set())
    if 401 in statuses:  # a token may be wrong, or lack a scope
        documented |= {403, 429}
    return {
        status: {"description": _MEANINGS[status], "content": content}
        for status in sorted(documented)
    }
