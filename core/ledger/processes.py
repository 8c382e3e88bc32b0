"""The processes of the fleet: their heartbeats, their queues and their integrations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from core.db.clocks import recent
from core.db.pool import Conn

ALIVE = recent("process.seen_at")
"""The condition on a row of `process` that it is alive, by the database's clock."""

IS_LIVE_WORKER = f"kind = 'worker' AND {ALIVE}"
"""The condition that it is a worker, and alive."""

HEARTBEAT = """
INSERT INTO process (id, kind, host, pid, queues, threads, clock, counters, encrypts_with,
    decrypts_with, readers, lease_seconds, hides_erasing)
VALUES (%(id)s, %(kind)s, %(host)s, %(pid)s, %(queues)s, %(threads)s, %(clock)s, %(counters)s,
    %(encrypts_with)s, %(decrypts_with)s, %(readers)s, %(lease_seconds)s, true)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), queues = excluded.queues,
    threads = excluded.threads,
    clock = excluded.clock, counters = excluded.counters
RETURNING draining
"""
RECORD_THROUGHPUT = """
INSERT INTO throughput AS a (minute, tasks, rows)
VALUES (date_trunc('minute', clock_timestamp()), %s, %s)
ON CONFLICT (minute) DO UPDATE SET tasks = a.tasks + excluded.tasks, rows = a.rows + excluded.rows
"""
DEREGISTER = "DELETE FROM process WHERE id = %s"
DELETE_DEAD = """
DELETE FROM process WHERE seen_at < least(clock_timestamp() - %s * interval '1 second', %s)
"""

# True if a live worker process is draining.
IS_DRAINING = f"SELECT EXISTS (SELECT FROM process WHERE draining AND {IS_LIVE_WORKER})"

# The threads and live worker processes that serve each queue.
SERVING = f"""
SELECT queue, sum(threads)::int, count(*)::int FROM process, unnest(queues) AS queue
WHERE NOT draining AND {IS_LIVE_WORKER}
GROUP BY queue
"""

# The queues of live worker processes. Processes with the same ones share their threads.
QUEUES = f"""
SELECT DISTINCT queues FROM process WHERE NOT draining AND {IS_LIVE_WORKER}
"""

# The threads of the live worker processes that serve the same queues as one of them. They may
# reserve all but one of each process: the number of these, and of those before this process.
GROUP = f"""
SELECT coalesce(sum(p.threads), 0)::int, coalesce(sum(p.threads) - count(*), 0)::int,
    coalesce(sum(p.threads - 1) FILTER (WHERE p.id < me.id), 0)::int
FROM process me JOIN process p ON p.queues = me.queues AND p.kind = 'worker' AND NOT p.draining
    AND {recent("process.seen_at", "p.seen_at")}
WHERE me.id = %s
"""

# The table has few rows.
LEASES = f"SELECT min(lease_seconds), max(lease_seconds) FROM process WHERE {ALIVE}"

# The processes that encrypt credentials, and the fingerprints of their keys. A process that has not
# deregistered may be stopped or cut off, and resume. The table has few rows.
KEYS_OF_PROCESSES = f"""
SELECT kind, host, pid, encrypts_with, decrypts_with, {ALIVE} AS alive,
    extract(epoch FROM clock_timestamp() - seen_at)::float AS silent_seconds
FROM process WHERE kind IN ('worker', 'api') ORDER BY host, kind, pid
"""

# Asks all live workers which tasks they hold. `core.ledger.looks` has their answers.
ASK = f"""
UPDATE process SET asked_at = now(), held = NULL WHERE {IS_LIVE_WORKER}
RETURNING asked_at
"""

# True while a live worker that holds work has not answered.
ASKING = f"""
SELECT EXISTS (SELECT FROM process
    WHERE asked_at = %s AND held IS NULL AND looked_at IS NOT NULL AND {ALIVE})
"""

# A worker that answers later finds `settled_at` in its row, because the lock orders the two.
SETTLE = """
WITH asked AS MATERIALIZED (SELECT id, held FROM process WHERE asked_at = %s FOR UPDATE)
UPDATE process p SET settled_at = clock_timestamp() FROM asked WHERE p.id = asked.id
RETURNING asked.held
"""

REGISTER = """
INSERT INTO integration (domain, name, version, tasks, max_tasks, reader_version)
SELECT domain, name, version, tasks, max_tasks, coalesce(reader_version, 0)
FROM json_to_recordset(%s::json) AS r(domain text, name text, version text, tasks jsonb,
    max_tasks bigint, reader_version int)
ORDER BY domain
ON CONFLICT (domain) DO UPDATE
SET name = excluded.name, version = excluded.version, tasks = excluded.tasks,
    max_tasks = excluded.max_tasks, reader_version = excluded.reader_version, seen_at = now()
"""

# True if the process that registered last has another version of the plugin.
OTHER_VERSION = """
SELECT EXISTS (SELECT FROM integration,
    jsonb_to_record(%s::jsonb) AS mine(domain text, version text, tasks jsonb)
    WHERE integration.domain = mine.domain
      AND (integration.version, integration.tasks) IS DISTINCT FROM (mine.version, mine.tasks))
"""


@dataclass(frozen=True, slots=True)
class Process:
    """The data with which a process registers.

    Attributes:
      fingerprints: The fingerprints of its keys, the encrypting one first. Default: the process
        encrypts nothing.
      readers: The versions of the readers of stored sources, by domain. Default: the process runs
        no tasks.
      lease_seconds: The length of the leases that it grants or renews. Default: it does neither.
    """

    id: UUID
    kind: str
    host: str
    pid: int
    queues: Sequence[str]
    threads: int
    fingerprints: Sequence[str] = ()
    readers: Mapping[str, int] | None = None
    lease_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LeaseLengths:
    """The lengths of leases in the fleet, in seconds.

    They differ while a new value of `POLLING_LEASE_SECONDS` is rolled out.
    """

    shortest: float
    longest: float


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """A process that encrypts credentials.

    Attributes:
      encrypts_with: The fingerprint of its first key; None for a process of an older version.
      decrypts_with: The fingerprints of all its keys.
    """

    kind: str
    host: str
    pid: int
    encrypts_with: str | None
    decrypts_with: Sequence[str] | None
    alive: bool
    silent_seconds: float

    def __str__(self) -> str:
        return f"{self.kind} {self.host}:{self.pid}"


def key_holders(conn: Conn) -> list[KeyHolder]:
    """Return the processes that encrypt credentials, also those that no longer answer."""
    with conn.cursor(row_factory=class_row(KeyHolder)) as cursor:
        return cursor.execute(KEYS_OF_PROCESSES).fetchall()


def heartbeat(conn: Conn, process: Process, clock: object, counters: Sequence[Any] = ()) -> bool:
    """Record the heartbeat and the counters of this process.

    Returns:
      True if an operator requested that the process drains.
    """
    params = {"id": process.id, "kind": process.kind, "host": process.host, "pid": process.pid}
    params |= {"queues": list(process.queues), "threads": process.threads, "clock": clock}
    params |= {"encrypts_with": next(iter(process.fingerprints), None)}
    params |= {"decrypts_with": list(process.fingerprints) or None}
    params |= {"readers": None if process.readers is None else json.dumps(dict(process.readers))}
    params |= {"lease_seconds": process.lease_seconds}
    row = conn.execute(HEARTBEAT, params | {"counters": json.dumps(list(counters))}).fetchone()
    return bool(row and row[0])


def lease_lengths(conn: Conn, own: float) -> LeaseLengths:
    """Return the lengths of leases of all live processes, and of this one."""
    ((shortest, longest),) = conn.execute(LEASES)
    return LeaseLengths(min(own, shortest or own), max(own, longest or own))


def record_throughput(conn: Conn, tasks: int, rows: int) -> None:
    """Add a process's finished tasks and changed rows to the current minute."""
    if tasks or rows:
        conn.execute(RECORD_THROUGHPUT, (tasks, rows))


def deregister(conn: Conn, process: UUID) -> None:
    """Delete the row of a process that exits."""
    conn.execute(DEREGISTER, (process,))


def draining(conn: Conn) -> bool:
    """Return True if a live worker process is draining."""
    row = conn.execute(IS_DRAINING).fetchone()
    return row is not None and bool(row[0])


def ask(conn: Conn) -> datetime | None:
    """Ask all live workers which tasks they hold. Returns the time of the question.

    Returns:
      The time by which `answered` and `settle` know the question; None if no worker lives.
    """
    row = conn.execute(ASK).fetchone()
    return None if row is None else row[0]


def answered(conn: Conn, asked: datetime) -> bool:
    """Return True if all live workers that hold work have answered a question."""
    ((asking,),) = conn.execute(ASKING, (asked,))
    return not asking


def settle(conn: Conn, asked: datetime) -> set[str]:
    """End a question, and return the ids of the messages that workers hold."""
    return {id for (held,) in conn.execute(SETTLE, (asked,)) for id in held or ()}


def serving(conn: Conn) -> dict[str, tuple[int, int]]:
    """Return the numbers of (threads, processes) that serve each queue."""
    return {queue: (threads, processes) for queue, threads, processes in conn.execute(SERVING)}


def neighbours(conn: Conn) -> dict[str, set[str]]:
    """Return, for each queue, the queues that some of its threads serve."""
    found: dict[str, set[str]] = {}
    for (queues,) in conn.execute(QUEUES):
        for queue in queues:
            found.setdefault(queue, set()).update(queues)
    return found


def group(conn: Conn, process: UUID) -> tuple[int, int, int]:
    """Return the group of a process: the live worker processes that serve the same queues.

    Returns:
      The number of their threads, of threads that they may reserve, and of those in the processes
      before this one.
    """
    row = conn.execute(GROUP, (process,)).fetchone()
    return (0, 0, 0) if row is None else row


def register(conn: Conn, catalog: Sequence[Mapping[str, Any]]) -> None:
    """Record the integrations that are installed with this process."""
    conn.execute(REGISTER, (json.dumps([dict(entry) for entry in catalog]),))


def other_version(conn: Conn, entry: Mapping[str, Any]) -> bool:
    """Return True if the fleet has registered another version of an integration than this entry.

    Then a deploy is in progress.
    """
    row = conn.execute(OTHER_VERSION, (json.dumps(dict(entry)),)).fetchone()
    return bool(row and row[0])
