"""The audit trail, the newest act first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Response

from core.dashboard.query_filters import Text
from core.dashboard.responses import Renderer
from core.dashboard.session import AuditViewer
from core.dashboard.wording import sentences
from core.db.pool import Conn
from core.errors import InvalidInput
from core.service import audit
from core.states import Act
from core.web.dependencies import After, Engine

router = APIRouter()


@router.get("/audit")
def audit_trail(
    engine: Engine,
    viewer: AuditViewer,
    renderer: Renderer,
    user: Text = "",
    act: Text = "",
    after: After = None,
) -> Response:
    """List acts: those on the viewer's data, and for operators all."""
    filters = {"user": user, "act": act}
    audit_filter = audit.AuditFilter(
        user=viewer.user_id, of_user=user.strip() or None, act=act or None
    )

    def load(conn: Conn) -> Mapping[str, Any]:
        values = {"filters": filters, "acts": list(Act)}
        try:
            page = audit.page(conn, engine.query_slots, audit_filter, after=after)
        except InvalidInput as error:
            return values | {"rows": [], "cursor": None, "wrong": sentences(error)}
        return values | {"rows": page.rows, "cursor": page.cursor, "wrong": None}

    return renderer.live("audit.html", load)
