"""How the whole fleet is: operators' first page."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from core.dashboard.charts import last_hour
from core.dashboard.responses import Show
from core.dashboard.session import Signed
from core.db.pool import Conn
from core.ledger import leadership
from core.service.backend import Backend
from core.service.fleet import activity, health, snapshot
from core.transport.messages import POLL_QUEUE, SAVE_QUEUE
from core.web.dependencies import Engine

router = APIRouter()


@router.get("/")
def overview(engine: Engine, principal: Signed, show: Show) -> Response:
    """Freshness, liveness, the queue, and the last hour; a user's first page is the accounts."""
    if not principal.is_admin:
        return RedirectResponse("/accounts", 303)
    return show.live("overview.html", lambda conn: _collect(engine, conn))


def _collect(engine: Backend, conn: Conn) -> dict[str, Any]:
    found = snapshot.collect(conn, engine.settings)
    hour = activity.last_hour(conn)
    processes = activity.processes(conn)
    return {
        "health": health.check(engine),
        "found": found,
        "accounts": _by(found.accounts, "status"),
        "tasks": _by(found.tasks, "state"),
        "overdue": sum(row["number"] for row in found.overdue),
        "parked": sum(row["number"] for row in found.parked),
        "waited": max((row["seconds"] for row in found.queue_age), default=0.0),
        "due": activity.due(conn),
        "processes": processes,
        "workers": [one for one in processes if one["alive"] and one["kind"] == "worker"],
        "leader": leadership.status(conn),
        "own_queues": (POLL_QUEUE, SAVE_QUEUE),
        "charts": [
            last_hour("Tasks", {row["minute"]: row["tasks"] for row in hour.rows}, hour.now),
            last_hour(
                "Rows kept or changed", {row["minute"]: row["rows"] for row in hour.rows}, hour.now
            ),
        ],
    }


def _by(rows: list[dict[str, Any]], name: str) -> dict[str, int]:
    """Numbers added up by one of their labels."""
    found: dict[str, int] = {}
    for row in rows:
        found[row[name]] = found.get(row[name], 0) + row["number"]
    return found
