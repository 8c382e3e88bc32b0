"""The viewer's access: what the session may do, and its end in all browsers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from core.dashboard.responses import Renderer
from core.dashboard.session import SignedIn

router = APIRouter()


@router.get("/access")
def access(viewer: SignedIn, renderer: Renderer) -> Response:
    """Show the scopes of the viewer."""
    values: dict[str, Any] = {"scopes": viewer.principal.scopes}
    return renderer.page("access.html", values)
