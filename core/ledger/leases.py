"""Leases: the time until which a dispatched task may stay unfinished.

An expired lease alone proves nothing: deploys and outages expire leases too. The task becomes a
suspect. It counts a crash only if a process dies after it has committed the start of the suspect.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.db.pool import Conn
from core.db.row_factory import dataclass_row
from core.ledger.breakers import EXPIRED_PROBES, take_back_attempts
from core.ledger.outcomes import LeaseKey
from core.results.parking import MAX_CRASHES
from core.states import TaskState

DIED = "its process died or hung while it ran"
"""The reason of a suspect whose lease expired after its start was committed."""

# A lease without a token is one that a message of a version without tokens names. The array keeps
# the plan a probe for each id, also if vacuum last found no task (ADR 0095).
_SAME_DISPATCH = """h.id = t.id AND h.dispatch_no = t.dispatch_no
        AND (h.token IS NULL OR h.token = t.token) AND t.id = ANY (%(tasks)s::bigint[])"""

_RENEWED = "lease_until = clock_timestamp() + %(lease)s * interval '1 second'"
# Skips rows that a saver or EXPIRE has locked: another transaction decides their state.
RENEW = f"""
WITH held AS MATERIALIZED (
    SELECT t.id FROM sync_task t
    JOIN unnest(%(tasks)s::bigint[], %(numbers)s::int[], %(tokens)s::bigint[])
        AS h(id, dispatch_no, token) ON {_SAME_DISPATCH}
    WHERE t.state = '{TaskState.QUEUED}' ORDER BY t.id FOR UPDATE OF t SKIP LOCKED
)
UPDATE sync_task t SET {_RENEWED} WHERE t.id = ANY (ARRAY(SELECT id FROM held))
"""

# The statement renews only leases that have used more than 40 % of their time. In a healthy queue,
# tasks end sooner, and the statement writes nothing.
RENEW_WAITING = f"""
WITH held AS MATERIALIZED (
    SELECT t.id FROM sync_task t
    JOIN unnest(%(tasks)s::bigint[], %(numbers)s::int[], %(tokens)s::bigint[])
        AS h(id, dispatch_no, token) ON {_SAME_DISPATCH}
    WHERE t.state = '{TaskState.QUEUED}'
      AND t.lease_until < clock_timestamp() + %(lease)s * interval '0.6 second'
    ORDER BY t.id FOR UPDATE OF t SKIP LOCKED
)
UPDATE sync_task t SET {_RENEWED} WHERE t.id = ANY (ARRAY(SELECT id FROM held))
"""

# The third crash parks a task: Cause.CRASHES of core.results.parking. The death of a process counts
# no crash against a task while it carries the probe of its account.
_CRASHED = "(t.suspect AND t.started_at IS NOT NULL AND p.probe_task IS NULL)"
_CONVICTED = f"({_CRASHED} AND t.crashes + 1 >= {MAX_CRASHES})"
EXPIRE = f"""
WITH expired AS MATERIALIZED (
    SELECT id FROM sync_task WHERE state = '{TaskState.QUEUED}' AND lease_until < clock_timestamp()
    ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED
), {EXPIRED_PROBES}
UPDATE sync_task t SET
    state = CASE WHEN {_CONVICTED} THEN '{TaskState.PARKED}' ELSE '{TaskState.READY}' END,
    crashes = t.crashes + {_CRASHED}::int,
    reason = CASE WHEN {_CRASHED} THEN '{DIED}' ELSE t.reason END,
    finished_at = CASE WHEN {_CONVICTED} THEN clock_timestamp() END,
    suspect = t.suspect OR %(suspect)s, available_at = clock_timestamp(), lease_until = NULL
FROM expired e LEFT JOIN probes p ON p.probe_task = e.id
WHERE t.id = e.id AND t.id = ANY (ARRAY(SELECT id FROM expired))
RETURNING t.id AS task_id, t.dispatch_no, t.integration_domain AS domain, t.state,
    t.run_id::text AS run_id, t.user_integration_id::text AS account_id, t.type
"""

CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float"

START_SUSPECT = f"""
UPDATE sync_task SET started_at = clock_timestamp()
WHERE id = %s AND dispatch_no = %s AND (%s::bigint IS NULL OR token = %s)
    AND state = '{TaskState.QUEUED}' RETURNING id
"""

# No index has these columns, so that the rows are updated in place. Skips rows like RENEW.
RECORD_PROGRESS = f"""
WITH held AS MATERIALIZED (
    SELECT t.id, h.done, h.total FROM sync_task t
    JOIN unnest(%(tasks)s::bigint[], %(numbers)s::int[], %(tokens)s::bigint[], %(done)s::bigint[],
        %(totals)s::bigint[]) AS h(id, dispatch_no, token, done, total) ON {_SAME_DISPATCH}
    WHERE t.state = '{TaskState.QUEUED}' ORDER BY t.id FOR UPDATE OF t SKIP LOCKED
)
UPDATE sync_task t SET progress_done = held.done, progress_total = held.total FROM held
WHERE t.id = held.id AND t.id = ANY (ARRAY(SELECT id FROM held))
"""

RELEASE_LEASES = f"""
WITH held AS MATERIALIZED (
    SELECT t.id FROM sync_task t
    JOIN unnest(%(tasks)s::bigint[], %(numbers)s::int[], %(tokens)s::bigint[])
        AS h(id, dispatch_no, token) ON {_SAME_DISPATCH}
    WHERE t.state = '{TaskState.QUEUED}' ORDER BY t.id FOR UPDATE OF t
)
UPDATE sync_task t SET state = '{TaskState.READY}', lease_until = NULL
WHERE t.id = ANY (ARRAY(SELECT id FROM held))
"""


@dataclass(frozen=True, slots=True)
class ExpiredLease:
    """A task whose lease expired, and its new state: `ready` as a suspect, or `parked`."""

    task_id: int
    dispatch_no: int
    domain: str
    state: str
    run_id: str
    account_id: str
    type: str


def renew(conn: Conn, held: Sequence[LeaseKey], lease_seconds: float) -> None:
    """Extend the leases of the tasks that a process has in flight."""
    conn.execute(RENEW, _params(held) | {"lease": lease_seconds})


def record_progress(conn: Conn, reports: Mapping[LeaseKey, tuple[int, int | None]]) -> None:
    """Record how much of their work running tasks have done: the units done, and in total."""
    units = {
        "done": [done for done, _ in reports.values()],
        "totals": [total for _, total in reports.values()],
    }
    conn.execute(RECORD_PROGRESS, _params(list(reports)) | units)


def renew_waiting(conn: Conn, held: Sequence[LeaseKey], lease_seconds: float) -> None:
    """Extend the leases of tasks whose message still waits in Redis."""
    conn.execute(RENEW_WAITING, _params(held) | {"lease": lease_seconds})


def _params(held: Sequence[LeaseKey]) -> dict[str, object]:
    return {
        "tasks": [task for task, _, _ in held],
        "numbers": [number for _, number, _ in held],
        "tokens": [token for _, _, token in held],
    }


def expire(conn: Conn, *, suspect: bool = True) -> list[ExpiredLease]:
    """Return tasks with an expired lease to `ready`; park a suspect at its third crash.

    The probe of an account counts as failed instead. Locks the tasks, then the breakers of probes.

    Args:
      conn: A connection in autocommit mode.
      suspect: False if the leader could not renew the leases of tasks that wait in Redis. Then an
        expired lease makes no suspect. Default: True.
    """
    cursor = conn.cursor(row_factory=dataclass_row(ExpiredLease))
    params = {"jitter": random.uniform(0.5, 1), "suspect": suspect}
    expired = cursor.execute(EXPIRE, params).fetchall()
    take_back_attempts(conn, {task.account_id for task in expired})
    return expired


def clock(conn: Conn) -> float:
    """Return the time of the database, in seconds since 1970."""
    ((seconds,),) = conn.execute(CLOCK)
    return float(seconds)


def start_suspect(conn: Conn, lease: LeaseKey) -> bool:
    """Commit that a suspect starts. Returns False if this dispatch is no longer current."""
    return conn.execute(START_SUSPECT, (*lease, lease[2])).fetchone() is not None


def release(conn: Conn, held: Sequence[LeaseKey]) -> None:
    """Return tasks that no worker has started to `ready`. They do not become suspects."""
    conn.execute(RELEASE_LEASES, _params(held))
