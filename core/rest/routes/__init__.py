"""The routes, a module for each kind of thing."""

from __future__ import annotations

from typing import Any

from core.web.problems import MEDIA_TYPE

_MEANINGS = {
    400: "The request cannot be read",
    401: "No token, or one that is unknown, expired or revoked",
    403: "Not with this token",
    404: "There is no such thing, or it is another user's",
    409: "It does not fit the state that this is in",
    410: "The cursor is outdated: begin again",
    413: "The body is too large",
    422: "Something that was sent cannot be used",
    502: "The provider cannot be asked now",
    503: "The database does not answer",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with, as the OpenAPI document lists them."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    # Who takes a body may get one that cannot be read.
    documented = {*statuses, 503} | ({400} if 413 in statuses else set())
    return {
        status: {"description": _MEANINGS[status], "content": content}
        for status in sorted(documented)
    }
