"""Letting workers finish what they hold before a deploy."""

from __future__ import annotations

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.service.fleet.liveness import ALIVE
from core.states import TaskState

# What a draining worker no longer serves gets no new tasks.
MARK = f"""
UPDATE process SET draining = true
WHERE kind = 'worker' AND (%(host)s::text IS NULL OR host = %(host)s)
  AND {ALIVE}
"""
# Nobody notes which worker holds a task. Where other workers serve a domain as well, those that
# drain have finished when they serve no queue any more, or have ended.
DRAINING = f"""
WITH alive AS (
    SELECT * FROM process
    WHERE kind = 'worker' AND {ALIVE}
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
    """Ask the workers of a host, or all of them, to take no more work.

    Returns how many were asked.
    """
    return conn.execute(MARK, {"host": host}).rowcount


def busy_processes(conn: Conn, host: str | None = None) -> list[Row]:
    """Those of the workers asked that may still hold tasks.

    `alone` says how many tasks, where nobody else serves their domains; `shared`, that somebody
    does.
    """
    rows = fetch(conn, DRAINING, {"host": host})
    return [row for row in rows if row["alone"] or row["shared"]]
