"""The current state of the fleet in numbers, for `/metrics` and the dashboard."""

from __future__ import annotations

from dataclasses import dataclass

from core.content.visible import visible
from core.db.clocks import lasts
from core.db.indexed import IS_DEFERRED
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.ledger import leadership
from core.ledger.pauses import PAUSED_DOMAINS
from core.ledger.processes import ALIVE
from core.service import use
from core.service.content import search_index
from core.service.count_cache import CountCache
from core.service.fleet import liveness
from core.service.runs.parked import CONDITION, ERROR_CLASS
from core.settings import Settings
from core.states import AccountState, HeldState, RunState, TaskState

FRESHNESS = (60, 300, 900, 1_800, 3_600, 14_400, 86_400, 604_800)
"""Bounds of the histogram of freshness: seconds since the end of an account's last run."""

# The partial indexes on ready and on queued tasks serve it.
OPEN_TASKS = f"""
SELECT integration_domain AS domain, state, count(*) AS number FROM (
    SELECT integration_domain, '{TaskState.READY}' AS state FROM sync_task
    WHERE state = '{TaskState.READY}'
    UNION ALL SELECT integration_domain, '{TaskState.QUEUED}' FROM sync_task
    WHERE state = '{TaskState.QUEUED}'
) open_ones GROUP BY 1, 2 ORDER BY 1, 2
"""
# A task that waits for its time is not late. Tasks of a paused integration, and of an account that
# is not active, wait on purpose. Accounts with ready tasks have open runs, which
# `sync_run_by_domain` serves.
_STOPPED_ACCOUNTS = f"""
WITH stopped AS MATERIALIZED (
    SELECT DISTINCT a.id FROM sync_run r JOIN user_integration a ON a.id = r.user_integration_id
    WHERE r.state = '{RunState.RUNNING}'
      AND (a.sync_status <> '{AccountState.ACTIVE}' OR a.integration_domain IN ({PAUSED_DOMAINS})
        OR a.user_id IN (SELECT k.user_id FROM user_kept k WHERE k.is_full))
)
"""
QUEUE_AGE = f"""
{_STOPPED_ACCOUNTS}
SELECT integration_domain AS domain,
    greatest(extract(epoch FROM clock_timestamp() - min(available_at)), 0)::float AS seconds
FROM sync_task WHERE state = '{TaskState.READY}' AND available_at <= clock_timestamp()
  AND user_integration_id NOT IN (SELECT id FROM stopped)
GROUP BY 1 ORDER BY 1
"""
# The second condition lets `sync_task_by_time` serve it.
OLDEST_READY = f"""
{_STOPPED_ACCOUNTS}
SELECT id FROM sync_task WHERE state = '{TaskState.READY}' AND dispatch_no >= 0
  AND integration_domain = %(domain)s AND available_at <= clock_timestamp()
  AND user_integration_id NOT IN (SELECT id FROM stopped)
ORDER BY available_at LIMIT 1
"""
# The index `sync_task_owed` serves it.
PARKED_BY_ERROR = f"""
SELECT t.integration_domain AS domain, {ERROR_CLASS} AS error, count(*) AS number
FROM sync_task t WHERE {CONDITION} AND {visible("t.user_integration_id")}
GROUP BY 1, 2 ORDER BY 1, 2
"""
# The index `sync_task_deferred` serves it.
DEFERRED = f"""
SELECT integration_domain AS domain, count(*) AS number FROM sync_task
WHERE {IS_DEFERRED} GROUP BY 1 ORDER BY 1
"""
# Accounts, or single limits of accounts. The index `breaker_open` serves it.
OPEN_BREAKERS = """
SELECT integration_domain AS domain, limit_name AS limit, count(*) AS number FROM breaker
WHERE opened_at IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2
"""
OPEN_RUNS_BY_LANE = f"""
SELECT integration_domain AS domain, lane, count(*) AS number,
    extract(epoch FROM clock_timestamp() - min(started_at))::float AS oldest
FROM sync_run WHERE state = '{RunState.RUNNING}' GROUP BY 1, 2 ORDER BY 1, 2
"""
ACCOUNTS_BY_STATUS = """
SELECT integration_domain AS domain, sync_status AS status, count(*) AS number
FROM user_integration GROUP BY 1, 2 ORDER BY 1, 2
"""
# The freshness of accounts that should be polled. The age of an account that was never synced
# counts from its creation.
AGES = f"""
SELECT integration_domain AS domain, width_bucket(age, %(bounds)s::float[]) AS bucket,
    count(*) AS number, sum(age)::float AS seconds
FROM (
    SELECT integration_domain, extract(epoch
        FROM clock_timestamp() - coalesce(last_sync_at, created_at))::float AS age
    FROM user_integration WHERE sync_status IN ('{AccountState.ACTIVE}', '{AccountState.ERROR}')
) aged GROUP BY 1, 2 ORDER BY 1, 2
"""
COUNT_OVERDUE = f"""
SELECT a.integration_domain AS domain, count(*) AS number {liveness.OVERDUE} GROUP BY 1 ORDER BY 1
"""
PROCESSES_BY_KIND = f"""
SELECT kind, count(*) AS number, coalesce(sum(threads), 0) AS threads FROM process
WHERE {ALIVE} GROUP BY 1 ORDER BY 1
"""
# A dispatcher may be a thread of a worker. It has its own counters, so it needs another name.
PROCESS_COUNTERS = f"""
SELECT host || ':' || pid || CASE kind WHEN 'worker' THEN '' ELSE ':' || kind END AS process,
    counters FROM process
WHERE {ALIVE} ORDER BY 1
"""
BLOCKED = f"SELECT count(*) AS number FROM limit_block WHERE {lasts('limit_block.until')}"
COUNT_HELD = f"""
SELECT count(*) AS number FROM held_deletion WHERE state = '{HeldState.HELD}' AND {visible()}
"""
OLDEST_TRANSACTION = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(xact_start)), 0)::float AS seconds
FROM pg_stat_activity WHERE backend_xid IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The numbers at one moment. A list has one row for each combination of labels."""

    tasks: list[Row]
    queue_age: list[Row]
    parked: list[Row]
    deferred: list[Row]
    breakers: list[Row]
    runs: list[Row]
    accounts: list[Row]
    overdue: list[Row]
    ages: list[Row]
    processes: list[Row]
    counted: list[Row]
    blocked: int
    held: int
    silent_seconds: float
    leads: bool
    horizon_seconds: float
    unsearchable: int
    use: list[Row]


@dataclass(frozen=True, slots=True)
class Summary:
    """The numbers of the overview at one moment, as those of `Snapshot`."""

    tasks: list[Row]
    queue_age: list[Row]
    parked: list[Row]
    runs: list[Row]
    accounts: list[Row]
    overdue: list[Row]
    blocked: int
    held: int


def summarize(conn: Conn, settings: Settings, counts: CountCache) -> Summary:
    """Collect the numbers of the overview. The counts of many accounts may be some seconds old."""
    return Summary(
        tasks=fetch(conn, OPEN_TASKS, {}),
        queue_age=fetch(conn, QUEUE_AGE, {}),
        parked=fetch(conn, PARKED_BY_ERROR, {}),
        runs=fetch(conn, OPEN_RUNS_BY_LANE, {}),
        accounts=counts.get("accounts", lambda: fetch(conn, ACCOUNTS_BY_STATUS, {}), _total),
        overdue=fetch(conn, COUNT_OVERDUE, liveness.overdue_params(settings)),
        blocked=fetch(conn, BLOCKED, {})[0]["number"],
        held=fetch(conn, COUNT_HELD, {})[0]["number"],
    )


def oldest_ready(conn: Conn, queue_age: list[Row]) -> int | None:
    """Return the id of the task that has waited longest; None if no task waits.

    Args:
      conn: A connection.
      queue_age: The rows of `QUEUE_AGE`.
    """
    oldest = max(queue_age, key=lambda row: row["seconds"], default=None)
    if oldest is None:
        return None
    rows = fetch(conn, OLDEST_READY, {"domain": oldest["domain"]})
    task: int | None = rows[0]["id"] if rows else None
    return task


def _total(rows: list[Row]) -> int:
    return sum(row["number"] for row in rows)


def collect(conn: Conn, settings: Settings) -> Snapshot:
    """Collect all numbers. The cost grows with the number of accounts and of open tasks."""
    status = leadership.status(conn)
    return Snapshot(
        tasks=fetch(conn, OPEN_TASKS, {}),
        queue_age=fetch(conn, QUEUE_AGE, {}),
        parked=fetch(conn, PARKED_BY_ERROR, {}),
        deferred=fetch(conn, DEFERRED, {}),
        breakers=fetch(conn, OPEN_BREAKERS, {}),
        runs=fetch(conn, OPEN_RUNS_BY_LANE, {}),
        accounts=fetch(conn, ACCOUNTS_BY_STATUS, {}),
        overdue=fetch(conn, COUNT_OVERDUE, liveness.overdue_params(settings)),
        ages=fetch(conn, AGES, {"bounds": [float(bound) for bound in FRESHNESS]}),
        processes=fetch(conn, PROCESSES_BY_KIND, {}),
        counted=fetch(conn, PROCESS_COUNTERS, {}),
        blocked=fetch(conn, BLOCKED, {})[0]["number"],
        held=fetch(conn, COUNT_HELD, {})[0]["number"],
        silent_seconds=status.silent_seconds,
        leads=status.leads,
        horizon_seconds=fetch(conn, OLDEST_TRANSACTION, {})[0]["seconds"],
        unsearchable=search_index.index_lag(conn),
        use=use.largest(conn),
    )
