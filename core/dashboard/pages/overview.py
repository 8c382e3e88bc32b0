"""The overview of the fleet: the first page for operators."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from core.dashboard.charts import last_hour
from core.dashboard.responses import Renderer
from core.dashboard.session import SignedIn
from core.db.pool import Conn
from core.ledger import leadership
from core.service.backend import Backend
from core.service.fleet import activity, health, liveness, outages, snapshot
from core.transport.messages import OWN_THREADS, SAVE_QUEUE
from core.web.dependencies import Engine

router = APIRouter()


@router.get("/")
def overview(engine: Engine, viewer: SignedIn, renderer: Renderer) -> Response:
    """Show the overview to operators; redirect others to the first page that they may see."""
    if not viewer.sees_status:
        return RedirectResponse("/access", 303)
    if not viewer.is_admin:
        return RedirectResponse("/accounts", 303)
    return renderer.live("overview.html", lambda conn: _collect(engine, conn))


def _collect(engine: Backend, conn: Conn) -> dict[str, Any]:
    fleet = snapshot.summarize(conn, engine.settings, engine.counts)
    hour = activity.last_hour(conn)
    processes = activity.processes(conn)
    return {
        "health": health.check(engine),
        "fleet": fleet,
        "outages": outages.sentences(conn, engine.registry),
        "accounts": _total_by(fleet.accounts, "status"),
        "tasks": _total_by(fleet.tasks, "state"),
        "overdue": sum(row["number"] for row in fleet.overdue),
        "parked": sum(row["number"] for row in fleet.parked),
        "oldest_ready": snapshot.oldest_ready(conn, fleet.queue_age),
        "max_wait_seconds": max((row["seconds"] for row in fleet.queue_age), default=0.0),
        "due": activity.due(conn),
        "overdue_seconds": liveness.silent_after_seconds(engine.settings),
        "processes": processes,
        "workers": [
            process for process in processes if process["alive"] and process["kind"] == "worker"
        ],
        "leader": leadership.status(conn),
        "own_queues": (*OWN_THREADS, SAVE_QUEUE),
        "charts": [
            last_hour(
                "Finished tasks", {row["minute"]: row["tasks"] for row in hour.rows}, hour.now
            ),
            last_hour(
                "Items saved or deleted",
                {row["minute"]: row["rows"] for row in hour.rows},
                hour.now,
            ),
        ],
    }


def _total_by(rows: list[dict[str, Any]], name: str) -> dict[str, int]:
    """Sum the numbers of rows by the value of one label."""
    totals: dict[str, int] = {}
    for row in rows:
        totals[row[name]] = totals.get(row[name], 0) + row["number"]
    return totals
