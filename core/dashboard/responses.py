"""Responses of the dashboard: complete pages, streams of their live parts, and redirects."""

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
    "connected": "Account connected. Its first run starts with the scheduler's next tick.",
    "connected-again": (
        "This account was already connected. It now has this configuration and these credentials."
    ),
    "reconnected": "Account reconnected.",
    "organization-connected": "Organization connected. Its accounts are due now.",
    "organization-updated": "The organization has the new credentials and members.",
    "organization-listed": "The members are listed.",
    "organization-listing": "A worker process lists the members, and adds their accounts.",
    "organization-disconnected": (
        "The credentials were deleted. The accounts are being disconnected, and keep their content."
    ),
    "paused": "Account paused. Tasks that are already running will finish.",
    "resumed": "Account resumed.",
    "integration-paused": "Integration paused. Tasks that are already running will finish.",
    "integration-resumed": (
        "Integration resumed. The next runs are spread over the interval of each account."
    ),
    "started": "Run started.",
    "joined": "A run is already open.",
    "limit-changed": "Limit changed. The fleet applies the new figures within seconds.",
    "limit-reset": "Limit reset. The fleet applies the figures within seconds.",
    "resync-later": "The resync starts after the open run has ended.",
    "reread-started": "Reread started. It runs in the background.",
    "works": "Check passed: the credentials work.",
    "disconnected": "Account disconnected. Its credentials were deleted.",
    "erased": "Account erased, with all its content.",
    "hidden": "Account disconnected. Its content is hidden, and will be deleted.",
    "changed": "Settings saved.",
    "changed-lists-again": "Settings saved. The next run is due now and lists everything again.",
    "retried": "Task retried.",
    "retried-edited": "Task retried with the edited payload.",
    "discarded": "Task discarded.",
    "deletions-accepted": (
        "Deletion accepted. A run has started. It looks for these items again, and marks the"
        " ones that are still missing as deleted."
    ),
    "deletions-accepted-later": (
        "Deletion accepted. The account's next run looks for these items again, and marks the"
        " ones that are still missing as deleted."
    ),
    "deletions-refused": "Deletion refused. The engine keeps the items.",
    "subscription-added": "Subscription added.",
    "subscription-tested": "A worker process sends the test message. Reload the page later.",
    "subscription-paused": "Subscription paused. Content and messages wait.",
    "subscription-resumed": "Subscription resumed.",
    "subscription-removed": "Subscription removed.",
    "token-revoked": "Token revoked. Requests with it and its sessions are refused.",
    "cancelled": "Run cancelled. Its open tasks continue in the next run.",
}
"""Messages that a page shows after an action, by its query parameter `flash`."""


class PageRenderer:
    """Render the response to one request."""

    def __init__(self, request: Request, engine: Engine, viewer: SignedIn) -> None:
        self._request = request
        self._engine: Backend = engine
        self._viewer: Viewer = viewer

    def page(self, name: str, values: Mapping[str, Any], status: int = 200) -> Response:
        """Return a complete page."""
        return HTMLResponse(rendering.page(name, self._common() | dict(values)), status)

    def live(self, name: str, load: Loader) -> Response:
        """Return a complete page, or a stream of its live part if the client accepts events.

        Args:
          name: The file name of the template.
          load: A function that reads the values of the template. It is called for each update.
            Its result must be the same for all viewers who may see the same rows.
        """
        if "text/event-stream" not in self._request.headers.get("accept", ""):
            return self.page(name, self._load(load))
        key = (
            str(self._request.url.path),
            str(self._request.url.query),
            self._viewer.user_id or "",
            str(self._viewer.is_admin),
            " ".join(self._viewer.principal.scopes),
        )
        state = self._request.app.state
        stream = state.live.stream(
            key,
            self._viewer.principal.counted_as,
            lambda: rendering.live_part(name, self._common() | self._load(load)),
            lambda: find_viewer(self._engine, self._request) is not None,
            state.rest.state.feed_watcher,
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

    Args:
      path: The path of the page.
      flash: A key of `FLASH_MESSAGES`. Default: no message.
    """
    return RedirectResponse(path + rendering.query(flash=flash), 303)
