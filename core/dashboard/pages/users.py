"""The use of the fleet by users and days, with the quotas of users."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from core.dashboard.query_filters import Text
from core.dashboard.responses import Renderer
from core.dashboard.session import StatusViewer
from core.db.pool import Conn
from core.service import quotas, use
from core.web.dependencies import Engine
from core.web.problems import HttpProblem

router = APIRouter()

SHOWN_USERS = 100
"""The number of users that operators see: those with the most thread-seconds."""

PERIODS = (1, 7, 30, 365)
"""The periods of days that the page offers."""

Days = Annotated[int, Query(ge=1, le=use.MAX_DAYS)]


@router.get("/users")
def list_users(
    engine: Engine, viewer: StatusViewer, renderer: Renderer, user: Text = "", days: Days = 30
) -> Response:
    """Show the quotas of a user, and the use by day. Without a user, operators see all users.

    Raises:
      HttpProblem: The viewer may not see this user.
    """
    shown = user.strip() or viewer.user_id or ""
    if shown and not viewer.principal.owns(shown):
        raise HttpProblem("token-of-another-user")
    values: dict[str, Any] = {"user": shown, "days": days, "periods": PERIODS}

    def load(conn: Conn) -> dict[str, Any]:
        rows = (
            use.by_day(conn, shown, days)
            if shown
            else use.of_users(conn, days=days, limit=SHOWN_USERS).rows
        )
        named = [shown] if shown else [row["user_id"] for row in rows]
        return values | {
            "rows": rows,
            "quotas": {each["user_id"]: each for each in quotas.of_users(conn, named)},
        }

    return renderer.live("users.html", load)
