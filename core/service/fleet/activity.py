"""The activity of the fleet: its processes, due accounts, and the last hour by minute."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.ledger.processes import ALIVE
from core.service.fleet.liveness import IS_DUE

LAST_HOUR = """
SELECT minute, tasks, rows FROM throughput WHERE minute > clock_timestamp() - interval '1 hour'
ORDER BY minute
"""
NOW = "SELECT clock_timestamp() AS now"
# The index `user_integration_due` serves it.
COUNT_DUE = f"SELECT count(*) AS number FROM user_integration WHERE {IS_DUE}"
LATEST_PROCESSES = f"""
SELECT id, kind, host, pid, queues, threads, draining, started_at, seen_at,
    {ALIVE} AS alive
FROM process ORDER BY alive DESC, kind, host, pid LIMIT 200
"""


@dataclass(frozen=True, slots=True)
class Hour:
    """The minutes of the last hour with activity."""

    rows: list[Row]
    now: datetime


def last_hour(conn: Conn) -> Hour:
    """Return the numbers of finished tasks and changed rows by minute.

    Workers report them with a delay of a few seconds.
    """
    return Hour(fetch(conn, LAST_HOUR, {}), fetch(conn, NOW, {})[0]["now"])


def due(conn: Conn) -> int:
    """Count the accounts whose next run is due now."""
    number: int = fetch(conn, COUNT_DUE, {})[0]["number"]
    return number


def processes(conn: Conn) -> list[Row]:
    """Return the processes of the last hour, live ones first, at most 200."""
    return fetch(conn, LATEST_PROCESSES, {})
