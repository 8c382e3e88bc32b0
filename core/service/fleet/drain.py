"""Drain workers before a deploy: they finish their tasks and take no new ones."""

from __future__ import annotations

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.ledger.processes import IS_LIVE_WORKER
from core.states import TaskState

# A draining worker no longer serves its queues, so it gets no new tasks.
REQUEST_DRAIN = f"""
UPDATE process SET draining = true
WHERE {IS_LIVE_WORKER} AND (%(host)s::text IS NULL OR host = %(host)s)
"""
UNDO_DRAIN = f"""
UPDATE process SET draining = false
WHERE draining AND {IS_LIVE_WORKER} AND (%(host)s::text IS NULL OR host = %(host)s)
"""
# The ledger does not record which worker holds a task. If other workers serve the same domain, a
# draining worker has finished once it serves no queue, or has exited.
DRAIN_STATE = f"""
WITH alive AS (
    SELECT * FROM process WHERE {IS_LIVE_WORKER}
)
SELECT p.id, p.host, p.pid, p.queues, p.threads,
    (SELECT count(*) FROM sync_task t
     WHERE t.state = '{TaskState.QUEUED}' AND t.integration_domain = ANY(p.queues)
        AND NOT EXISTS (SELECT FROM alive o
            WHERE NOT o.draining AND t.integration_domain = ANY(o.queues))
    )::int AS alone,
    EXISTS (SELECT FROM alive o WHERE NOT o.draining AND o.queues && p.queues) AS shared
FROM alive p
WHERE p.draining AND p.queues <> '{{}}' AND (%(host)s::text IS NULL OR p.host = %(host)s)
ORDER BY p.host, p.pid
"""


def request_drain(conn: Conn, host: str | None = None) -> int:
    """Drain the workers of a host, or all workers; return their number."""
    return conn.execute(REQUEST_DRAIN, {"host": host}).rowcount


def undo_drain(conn: Conn, host: str | None = None) -> int:
    """Let draining workers take tasks again, within seconds; return their number."""
    return conn.execute(UNDO_DRAIN, {"host": host}).rowcount


def busy_processes(conn: Conn, host: str | None = None) -> list[Row]:
    """Return the draining workers that may still hold tasks.

    In each row, `alone` is the number of queued tasks that no other worker serves, and `shared` is
    True if other workers serve some of the same queues.
    """
    rows = fetch(conn, DRAIN_STATE, {"host": host})
    return [row for row in rows if row["alone"] or row["shared"]]
