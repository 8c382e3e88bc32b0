"""How long a dispatched task may stay unfinished, and what becomes of it then.

An expired lease convicts nobody: deploys and outages expire leases too. The task becomes a suspect,
and only a death after a suspect's start was committed counts against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.db.pool import Conn

MOST_CRASHES = 3

DIED = "its process died or hung while it ran"
"""The reason of a suspect whose lease ran out after its start was committed."""

# Rows that a saver or the sweeper holds are skipped: their fate is being decided.
RENEW = """
WITH held AS MATERIALIZED (
    SELECT t.id FROM sync_task t
    JOIN unnest(%(tasks)s::bigint[], %(numbers)s::int[]) AS h(id, dispatch_no)
        ON h.id = t.id AND h.dispatch_no = t.dispatch_no
    WHERE t.state = 'queued' ORDER BY t.id FOR UPDATE OF t SKIP LOCKED
)
UPDATE sync_task t SET lease_until = clock_timestamp() + %(lease)s * interval '1 second'
FROM held WHERE t.id = held.id
"""

# Those that have used up some of their lease: a healthy queue moves on before that, and costs no
# write.
RENEW_WAITING = RENEW.replace(
    "WHERE t.state = 'queued'",
    "WHERE t.state = 'queued' AND t.lease_until < clock_timestamp() + %(lease)s * interval '0.6"
    " second'",
)

EXPIRE = f"""
WITH expired AS MATERIALIZED (
    SELECT id FROM sync_task WHERE state = 'queued' AND lease_until < clock_timestamp()
    ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED
)
UPDATE sync_task t SET
    state = CASE
        WHEN t.suspect AND t.started_at IS NOT NULL AND t.crashes + 1 >= {MOST_CRASHES}
        THEN 'parked' ELSE 'ready' END,
    crashes = t.crashes + CASE WHEN t.suspect AND t.started_at IS NOT NULL THEN 1 ELSE 0 END,
    reason = CASE WHEN t.suspect AND t.started_at IS NOT NULL THEN '{DIED}' ELSE t.reason END,
    finished_at = CASE
        WHEN t.suspect AND t.started_at IS NOT NULL AND t.crashes + 1 >= {MOST_CRASHES}
        THEN clock_timestamp() END,
    suspect = true, available_at = clock_timestamp(), lease_until = NULL
FROM expired e WHERE t.id = e.id
RETURNING t.id, t.dispatch_no, t.integration_domain, t.state, t.run_id::text,
    t.user_integration_id::text, t.type
"""  # noqa: S608  a number and a text of our own

START_SUSPECT = """
UPDATE sync_task SET started_at = clock_timestamp()
WHERE id = %s AND dispatch_no = %s AND state = 'queued' RETURNING id
"""

GIVE_BACK = """
WITH held AS MATERIALIZED (
    SELECT t.id FROM sync_task t JOIN unnest(%s::bigint[], %s::int[]) AS h(id, dispatch_no)
        ON h.id = t.id AND h.dispatch_no = t.dispatch_no
    WHERE t.state = 'queued' ORDER BY t.id FOR UPDATE OF t
)
UPDATE sync_task t SET state = 'ready', lease_until = NULL FROM held WHERE t.id = held.id
"""


@dataclass(frozen=True, slots=True)
class Expired:
    """A task whose lease ran out, and what it is now: `ready` as a suspect, or `parked`."""

    task_id: int
    dispatch_no: int
    domain: str
    state: str
    run_id: str
    account_id: str
    type: str


Held = Sequence[tuple[int, int]]
"""(task, dispatch_no) pairs."""


def renew(conn: Conn, held: Held, lease_seconds: float) -> None:
    """Extend the leases of everything a process holds."""
    conn.execute(RENEW, _names(held, lease_seconds))


def renew_waiting(conn: Conn, held: Held, lease_seconds: float) -> None:
    """Extend the leases of what still waits in Redis."""
    conn.execute(RENEW_WAITING, _names(held, lease_seconds))


def _names(held: Held, lease_seconds: float) -> dict[str, object]:
    return {
        "tasks": [task for task, _ in held],
        "numbers": [number for _, number in held],
        "lease": lease_seconds,
    }


def expire(conn: Conn) -> list[Expired]:
    """Requeue tasks whose lease expired; park a suspect that killed its process three times."""
    return [Expired(*row) for row in conn.execute(EXPIRE)]


def start_suspect(conn: Conn, task: int, dispatch_no: int) -> bool:
    """Commit that a suspect is about to run. False, if this dispatch of it is void."""
    return conn.execute(START_SUSPECT, (task, dispatch_no)).fetchone() is not None


def give_back(conn: Conn, held: Held) -> None:
    """What a worker has not begun when it stops is simply ready again, and not suspected."""
    conn.execute(GIVE_BACK, ([task for task, _ in held], [number for _, number in held]))
