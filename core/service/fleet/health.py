"""The status of each part, for load balancers and alarms.

Freshness and liveness are separate statuses. `polling doctor` uses the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import partial

from core.db.pool import DATABASE_UNAVAILABLE, Conn, DiskFull
from core.db.rows import fetch
from core.db.version import HEAD
from core.errors import PollingError
from core.ledger import leadership, processes
from core.service.backend import Backend, CheckStatus
from core.service.fleet import liveness
from core.settings import Settings

ANSWER_SECONDS = 0.9
"""Seconds after which a check is answered, even if a part has not answered."""

PARTS = ("schema", "workers", "dispatcher", "scheduler", "accounts", "redis", "disk")
"""The parts besides the database."""

SCHEMA = "SELECT version_num FROM alembic_version"
# A sort of 300 kB in 64 kB of memory writes a file, and nothing else. It takes about 2 ms.
SORT_ON_DISK = "SET LOCAL work_mem = '64kB'"
WRITE_FILE = """
SELECT count(*) FROM (
    SELECT n || repeat('x', 100) FROM generate_series(1, 2000) n ORDER BY 1 DESC OFFSET 0) sorted
"""
# The order makes the planner use the index of due accounts.
ANY_OVERDUE = f"""
SELECT (SELECT true {liveness.OVERDUE} ORDER BY next_sync_at LIMIT 1) IS NOT NULL AS overdue
"""


def check(backend: Backend) -> dict[str, CheckStatus]:
    """Check the database, the schema, the fleet, the accounts and Redis, within a second.

    If `database` or `schema` is `fail`, no request can be answered. The other statuses inform the
    operator. A database that has not answered in time is `fail`, any other part is `warn`.
    """
    found, is_complete = backend.health_flight.results(partial(_check, backend), ANSWER_SECONDS)
    if is_complete:
        return found
    if found.setdefault("database", "fail") == "fail":
        return found
    late: dict[str, CheckStatus] = dict.fromkeys(PARTS, "warn")
    return late | found


def _check(backend: Backend, checks: MutableMapping[str, CheckStatus]) -> None:
    """Check all parts, and store each status as soon as it is known."""
    try:
        with backend.database.connection() as conn:
            version = fetch(conn, SCHEMA, {})[0]["version_num"]
            checks["database"] = "ok"
            checks["schema"] = schema(version)
            checks.update(_fleet(conn, backend.settings))
            checks["accounts"] = _accounts(conn, backend.settings)
    except PollingError:
        checks["database"] = "fail"
    except Exception:  # noqa: BLE001  any failure means that no request can be answered
        checks.setdefault("database", "ok")
        checks["schema"] = "fail"
    checks["redis"] = "ok" if backend.queues.answers() else "fail"
    if checks["database"] == "ok":
        checks["disk"] = disk(backend)


def is_ready(checks: dict[str, CheckStatus]) -> bool:
    """Return True if requests can be answered."""
    return checks["database"] == "ok" and checks.get("schema") in ("ok", "warn")


def schema(revision: str | None) -> CheckStatus:
    """Return the status of a database at this revision. None: it has no schema.

    A newer revision is a warning only. An upgrade migrates the schema first, and the old version
    serves requests until it is replaced.
    """
    if revision == HEAD:
        return "ok"
    return "warn" if revision and revision.isdecimal() and revision > HEAD else "fail"


def disk(backend: Backend) -> CheckStatus:
    """Return the status of PostgreSQL's disk.

    It is full if a process could not write lately, or if PostgreSQL cannot write a file now.
    """
    if backend.queues.disk_is_full():
        return "fail"
    try:
        with backend.database.connection() as conn, conn.transaction():
            conn.execute(SORT_ON_DISK)
            conn.execute(WRITE_FILE)
    except DiskFull:
        return "fail"
    except DATABASE_UNAVAILABLE:
        pass  # another check reports it
    return "ok"


def workers(serving: Mapping[str, object]) -> CheckStatus:
    """Return the status of a fleet whose workers serve these queues."""
    return "ok" if serving else "warn"


def dispatcher(status: leadership.Status, serving: Mapping[str, object]) -> CheckStatus:
    """Return the status of the dispatcher; without a running worker, its absence is a warning."""
    if status.leads:
        return "ok"
    return "fail" if serving else "warn"


def scheduler(conn: Conn, status: leadership.Status, settings: Settings) -> CheckStatus:
    """Return the status of the scheduler. It is fine before the first tick, until that is late."""
    if liveness.is_silent(status, settings) and not liveness.is_starting(conn, status, settings):
        return "warn"
    return "ok"


def queue(status: leadership.Status) -> CheckStatus:
    """Return the status of the queue: a warning while tasks have waited too long for a thread."""
    return "warn" if status.leads and status.stuck else "ok"


def _fleet(conn: Conn, settings: Settings) -> dict[str, CheckStatus]:
    status, serving = leadership.status(conn), processes.serving(conn)
    return {
        "workers": workers(serving),
        "dispatcher": dispatcher(status, serving),
        "scheduler": scheduler(conn, status, settings),
        "queue": queue(status),
    }


def _accounts(conn: Conn, settings: Settings) -> CheckStatus:
    rows = fetch(conn, ANY_OVERDUE, liveness.overdue_params(settings))
    return "warn" if rows[0]["overdue"] else "ok"
