"""Responses of the dashboard: whole pages, streams of their live parts, and redirects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse

from core.dashboard import rendering
from core.dashboard.session import SignedIn, Viewer, find_viewer
from core.db.pool import Conn
from core.service.backend import Backend
from core.web.dependencies import Engine

Loader = Callable[[Conn], Mapping[str, Any]]

FLASH_MESSAGES = {
    "connected": (
        "The account is connected. Its first run is due, and begins with the scheduler's next tick."
    ),
    "connected-again": (
        "This account was connected before. It has this config and these credentials now, and"
        " goes on."
    ),
    "reconnected": "The new credentials work; it goes on.",
    "paused": "Paused. What runs now is finished and kept.",
    "resumed": "It goes on.",
    "requested": "A run is under way.",
    "works": "The credentials work.",
    "disconnected": "Disconnected; its credentials are gone.",
    "erased": "The account and everything it kept are gone.",
    "changed": "Changed.",
    "changed-lists-again": (
        "Changed. Everything is listed again with its next run, which is due now."
    ),
    "retried": "Tried again.",
    "discarded": "Discarded.",
    "cancelled": "Cancelled. Its open tasks go on in the next run.",
}
"""What a page shows after an action, by the parameter `flash` of its address."""


class PageRenderer:
    """Render the response to one request."""

    def __init__(self, request: Request, engine: Engine, viewer: SignedIn) -> None:
        self._request = request
        self._engine: Backend = engine
        self._viewer: Viewer = viewer

    def page(self, name: str, values: Mapping[str, Any], status: int = 200) -> Response:
        """Return a whole page."""
        return HTMLResponse(rendering.page(name, self._common() | dict(values)), status)

    def live(self, name: str, load: Loader) -> Response:
        """Return a whole page, or a stream of its live part if the client accepts events.

        Parameters:
          load: Reads the values of the template. It is called for each update, and its result must
            be the same for all viewers who may see the same rows.
        """
        if "text/event-stream" not in self._request.headers.get("accept", ""):
            return self.page(name, self._load(load))
        key = (
            str(self._request.url.path),
            str(self._request.url.query),
            self._viewer.user_id or "",
            str(self._viewer.is_admin),
        )
        state = self._request.app.state
        stream = state.live.stream(
            key,
            self._viewer.principal.token_id,
            lambda: rendering.live_part(name, self._common() | self._load(load)),
            lambda: find_viewer(self._engine, self._request) is not None,
            state.rest.state.pulse,
        )
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    def _load(self, load: Loader) -> dict[str, Any]:
        with self._engine.database.connection() as conn:
            return dict(load(conn))

    def _common(self) -> dict[str, Any]:
        flash = FLASH_MESSAGES.get(self._request.query_params.get("flash", ""))
        return {"viewer": self._viewer, "path": self._request.url.path, "flash": flash}


Renderer = Annotated[PageRenderer, Depends(PageRenderer)]


def redirect(path: str, flash: str | None = None) -> Response:
    """Redirect to a page after an action.

    Parameters:
      flash: A key of `FLASH_MESSAGES`. Default: no message.
    """
    return RedirectResponse(path + rendering.query(flash=flash), 303)
