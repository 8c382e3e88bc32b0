"""Health checks for load balancers and alarms: liveness, and apart from it, freshness.

A silent scheduler, and an account that is not polled, are seen before two of their intervals have
passed.
"""

from __future__ import annotations

from typing import Literal

from core.api.backend import Backend
from core.api.listings import fetch
from core.db.pool import Conn
from core.db.version import HEAD
from core.dispatcher.chores import tick_seconds
from core.errors import PollingError
from core.ledger import leadership, upkeep
from core.settings import Settings

Standing = Literal["ok", "warn", "fail"]

TICKS = 1.75
"""Intervals of the scheduler that may pass without a tick."""

INTERVALS = 0.75
"""Of an account's own interval that may pass after its next sync is due; no less than `TICKS`."""

SCHEMA = "SELECT version_num FROM alembic_version"
# Served by `user_integration_due`. An account whose run is open is being worked on, whatever that
# takes.
OVERDUE = """
FROM user_integration a
WHERE sync_status = 'active'
  AND next_sync_at < clock_timestamp() - greatest(
      {intervals} * poll_interval_minutes * interval '1 minute', {ticks} * interval '1 second')
  AND NOT EXISTS (
      SELECT FROM sync_run r
      WHERE r.user_integration_id = a.id AND r.lane = 'live' AND r.state = 'running')
"""


def overdue(settings: Settings) -> str:
    """The accounts that should have been polled by now, as the FROM and WHERE of a query on `a`."""
    return OVERDUE.format(intervals=INTERVALS, ticks=TICKS * tick_seconds(settings.cron_schedule))


def look(backend: Backend) -> dict[str, Standing]:
    """How each part stands.

    `fail` of `database` or `schema` means that no request can be answered; the rest is for people.
    """
    checks: dict[str, Standing] = {"database": "ok"}
    try:
        with backend.database.connection() as conn:
            checks["schema"] = _schema(fetch(conn, SCHEMA, {})[0]["version_num"])
            checks |= _fleet(conn, backend.settings)
            checks["accounts"] = _accounts(conn, backend.settings)
    # Whatever it is, nothing can be answered without the database.
    except Exception as error:  # noqa: BLE001
        checks["database" if isinstance(error, PollingError) else "schema"] = "fail"
    checks["redis"] = "ok" if backend.queues.answers() else "fail"
    return checks


def is_ready(checks: dict[str, Standing]) -> bool:
    """Whether requests can be answered."""
    return checks["database"] == "ok" and checks.get("schema") in ("ok", "warn")


def _schema(found: str) -> Standing:
    """Accept a newer schema version.

    In an upgrade the schema comes first, and the old version serves until it is replaced.
    """
    if found == HEAD:
        return "ok"
    return "warn" if found.isdecimal() and found > HEAD else "fail"


def _fleet(conn: Conn, settings: Settings) -> dict[str, Standing]:
    status = leadership.status(conn)
    leads = status.leader_until is not None and status.leader_until > status.now
    return {
        "workers": "ok" if upkeep.serving(conn) else "warn",
        "dispatcher": "ok" if leads else "warn",
        "scheduler": (
            "warn"
            if silent_seconds(status) > TICKS * tick_seconds(settings.cron_schedule)
            else "ok"
        ),
    }


def silent_seconds(status: leadership.Status) -> float:
    """Since the last tick of the scheduler; infinite before the first."""
    if status.last_tick_at is None:
        return float("inf")
    return (status.now - status.last_tick_at).total_seconds()


def _accounts(conn: Conn, settings: Settings) -> Standing:
    found = fetch(conn, f"SELECT EXISTS (SELECT {overdue(settings)}) AS overdue", {})
    return "warn" if found[0]["overdue"] else "ok"
