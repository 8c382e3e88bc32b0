"""How a page is answered: whole, or as a stream of its live part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse

from core.dashboard import rendering
from core.dashboard.session import Signed, Viewer, find_viewer
from core.db.pool import Conn
from core.service.backend import Backend
from core.web.dependencies import Engine

Look = Callable[[Conn], Mapping[str, Any]]

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
"""What a page says after something was done, by the word in its address."""


class PageRenderer:
    """Answers one request."""

    def __init__(self, request: Request, engine: Engine, principal: Signed) -> None:
        self._request = request
        self._engine: Backend = engine
        self._who: Viewer = principal

    def show(self, name: str, values: Mapping[str, Any], status: int = 200) -> Response:
        """A whole page."""
        return HTMLResponse(rendering.page(name, self._common() | dict(values)), status)

    def live(self, name: str, look: Look) -> Response:
        """A page, or, for who asks for a stream of events, its live part as it changes.

        Parameters:
          look: What it shows; asked again and again. The same for all who see the same rows.
        """
        if "text/event-stream" not in self._request.headers.get("accept", ""):
            return self.show(name, self._looked(look))
        key = (
            str(self._request.url.path),
            str(self._request.url.query),
            self._who.user_id or "",
            str(self._who.is_admin),
        )
        state = self._request.app.state
        stream = state.live.stream(
            key,
            self._who.principal.token_id,
            lambda: rendering.live_part(name, self._common() | self._looked(look)),
            lambda: find_viewer(self._engine, self._request) is not None,
            state.rest.state.pulse,
        )
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    def _looked(self, look: Look) -> dict[str, Any]:
        with self._engine.database.connection() as conn:
            return dict(look(conn))

    def _common(self) -> dict[str, Any]:
        said = FLASH_MESSAGES.get(self._request.query_params.get("said", ""))
        return {"who": self._who, "path": self._request.url.path, "said": said}


Show = Annotated[PageRenderer, Depends(PageRenderer)]


def redirect(path: str, said: str | None = None) -> Response:
    """To another page, after something was done."""
    return RedirectResponse(path + rendering.query(said=said), 303)
