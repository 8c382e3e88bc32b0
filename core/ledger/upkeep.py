"""The leader's periodic work: live processes, bounds on runs, and deletion of old data."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.db.pool import Conn

ALIVE_SECONDS = 15.0
"""A process that was not heard of for this long is taken for dead."""

HEARTBEAT = """
INSERT INTO process (id, kind, host, pid, queues, threads, clock, figures)
VALUES (%(id)s, %(kind)s, %(host)s, %(pid)s, %(queues)s, %(threads)s, %(clock)s, %(figures)s)
ON CONFLICT (id) DO UPDATE SET
    seen_at = clock_timestamp(), queues = excluded.queues, threads = excluded.threads,
    clock = excluded.clock, figures = excluded.figures
RETURNING draining
"""
ACTIVITY = """
INSERT INTO activity AS a (minute, tasks, rows)
VALUES (date_trunc('minute', clock_timestamp()), %s, %s)
ON CONFLICT (minute) DO UPDATE SET tasks = a.tasks + excluded.tasks, rows = a.rows + excluded.rows
"""
GOODBYE = "DELETE FROM process WHERE id = %s"
BURY = "DELETE FROM process WHERE seen_at < clock_timestamp() - interval '1 hour'"

# Threads that serve each queue, over all live worker processes.
SERVING = """
SELECT queue, sum(threads)::int, count(*)::int FROM process, unnest(queues) AS queue
WHERE kind = 'worker' AND NOT draining AND seen_at > clock_timestamp() - %s * interval '1 second'
GROUP BY queue
"""

REGISTER = """
INSERT INTO integration (domain, name, version, tasks, max_tasks)
SELECT domain, name, version, tasks, max_tasks FROM json_to_recordset(%s::json)
    AS r(domain text, name text, version text, tasks jsonb, max_tasks bigint)
ORDER BY domain
ON CONFLICT (domain) DO UPDATE SET
    name = excluded.name, version = excluded.version, tasks = excluded.tasks,
    max_tasks = excluded.max_tasks, seen_at = now()
"""

# Who registered last has another version of the plugin than this one.
OTHER_VERSION = """
SELECT EXISTS (SELECT FROM integration,
    jsonb_to_record(%s::jsonb) AS mine(domain text, version text, tasks jsonb)
    WHERE integration.domain = mine.domain
      AND (integration.version, integration.tasks) IS DISTINCT FROM (mine.version, mine.tasks))
"""

# A run with more tasks than its integration allows adds no more: its growing tasks park with this
# reason.
OVER_LIMIT = """
UPDATE sync_run r SET over_limit
    = format('the run has more than %s tasks; a task may be making ever new keys', i.max_tasks)
FROM integration i
WHERE i.domain = r.integration_domain AND r.state = 'running' AND r.over_limit IS NULL
  AND r.started_at < now() - interval '20 seconds'
  AND EXISTS (SELECT FROM sync_task t WHERE t.run_id = r.id OFFSET i.max_tasks LIMIT 1)
"""

# A run at a time, so that nothing is read when nothing is old. Parked tasks that nobody has tried
# again are never pruned.
TO_PRUNE = """
SELECT id FROM sync_run WHERE NOT pruned AND finished_at < now() - %s * interval '1 day'
ORDER BY finished_at LIMIT 100
"""
PRUNE_TASKS = """
DELETE FROM sync_task WHERE id = ANY (ARRAY(
    SELECT id FROM sync_task WHERE run_id = %s AND (state = 'done' OR retried_as IS NOT NULL)
    LIMIT 5000))
"""
PRUNED = "UPDATE sync_run SET pruned = true WHERE id = %s"
PRUNE_BLOCKS = "DELETE FROM limit_block WHERE until < now() - interval '1 hour'"
PRUNE_KEYS = "DELETE FROM idempotency_key WHERE created_at < now() - interval '1 day'"
PRUNE_ACTIVITY = "DELETE FROM activity WHERE minute < now() - interval '1 day'"
PRUNE_FLOWS = "DELETE FROM oauth_flow WHERE expires_at < now()"
PRUNE_SEEN = """
DELETE FROM sync_seen s WHERE NOT EXISTS (
    SELECT FROM sync_run r WHERE r.id = s.run_id AND r.state = 'running')
"""


@dataclass(frozen=True, slots=True)
class Process:
    """A running process, as it registers itself."""

    id: UUID
    kind: str
    host: str
    pid: int
    queues: Sequence[str]
    threads: int


def heartbeat(conn: Conn, process: Process, clock: object, figures: Sequence[Any] = ()) -> bool:
    """Say that this process lives, and what it has counted.

    Returns whether it was asked to drain.
    """
    names = {"id": process.id, "kind": process.kind, "host": process.host, "pid": process.pid}
    names |= {"queues": list(process.queues), "threads": process.threads, "clock": clock}
    row = conn.execute(HEARTBEAT, names | {"figures": json.dumps(list(figures))}).fetchone()
    return bool(row and row[0])


def note_activity(conn: Conn, tasks: int, rows: int) -> None:
    """Add what a process has ended and changed since it last told, to the minute that is now."""
    if tasks or rows:
        conn.execute(ACTIVITY, (tasks, rows))


def goodbye(conn: Conn, process: UUID) -> None:
    """This process ends."""
    conn.execute(GOODBYE, (process,))


def serving(conn: Conn) -> dict[str, tuple[int, int]]:
    """(threads, processes) that serve each queue now."""
    return {
        queue: (threads, processes)
        for queue, threads, processes in conn.execute(SERVING, (ALIVE_SECONDS,))
    }


def register(conn: Conn, catalog: Sequence[Mapping[str, Any]]) -> None:
    """Tell the fleet what the integrations installed here look like."""
    conn.execute(REGISTER, (json.dumps([dict(entry) for entry in catalog]),))


def other_version(conn: Conn, entry: Mapping[str, Any]) -> bool:
    """Return whether the fleet has another version of an integration than this catalog entry.

    That means that a deploy is in progress.
    """
    row = conn.execute(OTHER_VERSION, (json.dumps(dict(entry)),)).fetchone()
    return bool(row and row[0])


def tidy(conn: Conn) -> None:
    """Stop runs that are too large; delete old blocks, processes and listing records."""
    for statement in (
        OVER_LIMIT,
        PRUNE_BLOCKS,
        PRUNE_SEEN,
        BURY,
        PRUNE_KEYS,
        PRUNE_FLOWS,
        PRUNE_ACTIVITY,
    ):
        conn.execute(statement)


def prune(conn: Conn, retention_days: float, seconds: float) -> bool:
    """Throw away old tasks, in portions, until none is left or this time is over.

    Returns whether none is left.
    """
    deadline = time.monotonic() + seconds
    while runs := conn.execute(TO_PRUNE, (retention_days,)).fetchall():
        for (run,) in runs:
            while conn.execute(PRUNE_TASKS, (run,)).rowcount:
                if time.monotonic() >= deadline:
                    return False
            conn.execute(PRUNED, (run,))
            if time.monotonic() >= deadline:
                return False
    return True
