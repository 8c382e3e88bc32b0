"""Continue tasks that ended without a result, as copies in a later run.

A run that starts continues the tasks of cancelled runs, and the deferred tasks that are due. The
leader continues deferred tasks that become due between two runs. A person continues parked tasks:
see `core.ledger.controls`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from core.db.pool import Conn
from core.integration.base import START
from core.ledger.breakers import MIN_POSTPONEMENT_SECONDS, PROBE_DUE
from core.ledger.opening import open_run
from core.ledger.pauses import PAUSED_DOMAINS
from core.results.decisions import MAX_DEFERRAL_SECONDS
from core.states import STOPPED_TASKS, AccountState, Lane, TaskState, Trigger, literals

PAUSED_SECONDS = 900.0
"""Seconds for which the deferred tasks of a paused integration are postponed at a time."""

# Served by `sync_task_owed`: most accounts owe nothing.
OWING = f"""
SELECT DISTINCT user_integration_id FROM sync_task
WHERE user_integration_id = ANY(%s) AND state IN ({literals(STOPPED_TASKS)})
  AND retried_as IS NULL
"""

# A deferred root task is replaced by the root task of the new run. Served by `sync_task_owed`.
TO_CONTINUE = f"""
SELECT t.id FROM sync_task t
WHERE t.user_integration_id = %(account)s AND t.lane = %(lane)s AND t.retried_as IS NULL
  AND t.run_id <> %(run)s
  AND (t.state = '{TaskState.CANCELLED}'
    OR t.state = '{TaskState.DEFERRED}'
      AND (%(all)s OR t.available_at <= clock_timestamp() OR t.type = '{START}'))
ORDER BY t.id FOR UPDATE OF t
"""
WAITING_BACKFILL = f"""
SELECT EXISTS (SELECT FROM sync_task t
    WHERE t.user_integration_id = %(account)s AND t.lane = '{Lane.BACKFILL}'
      AND t.retried_as IS NULL
      AND (t.state = '{TaskState.CANCELLED}'
        OR t.state = '{TaskState.DEFERRED}' AND (%(all)s OR t.available_at <= clock_timestamp())))
"""

# A run has one task of each key. A copy within the run of its original gets a key of its own. A
# task that a person retries has a new history: its deferrals and first failure are not copied.
COPY_TASKS = f"""
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, retry_of, type,
    payload, dedup_key, priority, deferrals, first_failed_at, carried)
SELECT DISTINCT ON (t.key) %(run)s, t.user_integration_id, t.integration_domain, t.lane, t.id,
    t.type, t.payload, t.key, t.priority,
    CASE WHEN t.state <> '{TaskState.PARKED}' THEN t.deferrals ELSE 0 END,
    CASE WHEN t.state <> '{TaskState.PARKED}' THEN t.first_failed_at END, true
FROM (SELECT o.*, CASE WHEN o.run_id = %(run)s
        THEN decode(md5(o.id::text || '-' || o.dispatch_no::text), 'hex')
        ELSE o.dedup_key END AS key
    FROM sync_task o WHERE o.id = ANY(%(tasks)s) AND (%(roots)s OR o.type <> '{START}')) t
ORDER BY t.key, t.id
ON CONFLICT (run_id, dedup_key) DO NOTHING
RETURNING retry_of, id
"""
MARK_COPIED = """
UPDATE sync_task t SET retried_as = copied.copy
FROM unnest(%s::bigint[], %s::bigint[]) AS copied(task, copy) WHERE t.id = copied.task
"""
# The run has the same task already. Each row probes the unique index on (run_id, dedup_key).
MARK_REPLACED = """
UPDATE sync_task t SET retried_as = coalesce(
    (SELECT same.id FROM sync_task same
     WHERE same.run_id = %(run)s AND same.dedup_key = t.dedup_key AND same.id <> t.id),
    t.id)
WHERE t.id = ANY(%(tasks)s)
"""

# Served by `sync_task_deferred`.
DUE_DEFERRED = f"""
SELECT user_integration_id, lane, count(*)::int FROM (
    SELECT user_integration_id, lane FROM sync_task
    WHERE state = '{TaskState.DEFERRED}' AND retried_as IS NULL
      AND available_at <= clock_timestamp()
    ORDER BY available_at LIMIT %s) due
GROUP BY 1, 2 ORDER BY 1, 2 DESC
"""
LOCK_ACCOUNT_IF_FREE = f"""
SELECT sync_status, integration_domain = ANY (ARRAY({PAUSED_DOMAINS})) FROM user_integration
WHERE id = %s FOR NO KEY UPDATE SKIP LOCKED
"""
LOCK_DUE_TASKS = f"""
SELECT id, type FROM sync_task
WHERE user_integration_id = %(account)s AND lane = %(lane)s AND state = '{TaskState.DEFERRED}'
  AND retried_as IS NULL AND available_at <= clock_timestamp()
ORDER BY id LIMIT 1000 FOR UPDATE
"""
# The open breakers of an account, and whether a deferred task is needed as the probe: no ready task
# can be it. Served by `sync_task_ready`.
BREAKERS_OF = f"""
SELECT b.types, extract(epoch FROM b.probe_at - clock_timestamp())::float AS seconds,
    {PROBE_DUE} AND NOT EXISTS (SELECT FROM sync_task t WHERE t.state = '{TaskState.READY}'
        AND t.integration_domain = b.integration_domain
        AND t.user_integration_id = b.user_integration_id
        AND (b.types IS NULL OR t.type = ANY (b.types))) AS needs_probe
FROM breaker b WHERE b.user_integration_id = %s AND b.opened_at IS NOT NULL ORDER BY b.limit_name
"""
POSTPONE = """
UPDATE sync_task SET available_at = clock_timestamp() + %s * interval '1 second' WHERE id = ANY(%s)
"""
POLL_SOON = """
UPDATE user_integration SET next_sync_at = least(next_sync_at, clock_timestamp()) WHERE id = %s
"""


def owing(conn: Conn, accounts: Sequence[UUID]) -> set[UUID]:
    """Return those of these accounts that have stopped tasks without a copy."""
    return {account for (account,) in conn.execute(OWING, (list(accounts),))}


def continue_tasks(conn: Conn, run: UUID, account: UUID, *, all_deferred: bool = False) -> None:
    """Copy tasks of earlier runs into a new live run, and into the open backfill run.

    Locks, in this order: the live tasks, the backfill run FOR SHARE, the backfill tasks.

    Args:
      conn: A connection in a transaction.
      run: The new live run.
      account: Its account; the caller has locked it.
      all_deferred: True to copy deferred tasks before they are due. Default: False.
    """
    params: dict[str, Any] = {"run": run, "account": account, "all": all_deferred}
    _continue(conn, {**params, "lane": Lane.LIVE})
    waiting = conn.execute(WAITING_BACKFILL, params).fetchone()
    if waiting is not None and waiting[0]:
        backfill = open_run(conn, account, lane=Lane.BACKFILL, trigger=Trigger.RETRY)
        _continue(conn, {**params, "run": backfill, "lane": Lane.BACKFILL})


def _continue(conn: Conn, params: dict[str, Any]) -> None:
    tasks = [task for (task,) in conn.execute(TO_CONTINUE, params)]
    if tasks:
        copy_tasks(conn, params["run"], tasks)


def copy_tasks(conn: Conn, run: UUID, tasks: Sequence[int], *, roots: bool = False) -> list[int]:
    """Copy tasks into a run, and note each copy in its original. Returns the ids of the copies.

    A task that the run has already gets no copy.

    Args:
      conn: A connection in a transaction that has locked the tasks by id.
      run: An open run, locked FOR SHARE or new.
      tasks: Ids of stopped tasks.
      roots: True to copy root tasks too. Default: False, because the run has its own.
    """
    params: dict[str, Any] = {"run": run, "tasks": list(tasks), "roots": roots}
    copies: dict[int, int] = dict(conn.execute(COPY_TASKS, params).fetchall())
    conn.execute(MARK_COPIED, (list(copies), list(copies.values())))
    params["tasks"] = [task for task in tasks if task not in copies]
    if params["tasks"]:
        conn.execute(MARK_REPLACED, params)
    return sorted(copies.values())


def poll_soon(conn: Conn, account: UUID) -> None:
    """Make the next poll of an account due."""
    conn.execute(POLL_SOON, (account,))


def continue_deferred(conn: Conn, batch: int) -> int:
    """Copy deferred tasks that are due into the open run of their account, or into a new one.

    Tasks of accounts that are not active and of paused integrations are postponed, and so are tasks
    that an open breaker holds back. A root task has no copy: its account is polled instead.

    Args:
      conn: A connection in autocommit mode.
      batch: The number of due tasks to read.

    Returns:
      The number of due tasks that were read. If it is `batch`, there may be more.
    """
    due = conn.execute(DUE_DEFERRED, (batch,)).fetchall()
    for account, lane, _ in due:
        with conn.transaction():
            _continue_deferred(conn, account, lane)
    return sum(tasks for _, _, tasks in due)


def _continue_deferred(conn: Conn, account: UUID, lane: str) -> None:
    """Continue the due tasks of one lane. Locks the account, its tasks by id, then the run."""
    status = conn.execute(LOCK_ACCOUNT_IF_FREE, (account,)).fetchone()
    if status is None:
        return
    due = conn.execute(LOCK_DUE_TASKS, {"account": account, "lane": lane}).fetchall()
    if status[0] != AccountState.ACTIVE:
        _postpone(conn, [task for task, _ in due])
        return
    if status[1]:
        _postpone(conn, [task for task, _ in due], PAUSED_SECONDS)
        return
    if roots := [task for task, type in due if type == START]:
        _postpone(conn, roots)
        poll_soon(conn, account)
    if tasks := _let_through(conn, account, [task for task in due if task[1] != START]):
        run = open_run(conn, account, lane=lane, trigger=Trigger.RETRY)
        copy_tasks(conn, run, tasks)


def _let_through(conn: Conn, account: UUID, due: list[tuple[int, str]]) -> list[int]:
    """Return the tasks that no open breaker holds back, and postpone the others.

    If a breaker needs a task as its probe, one of them passes.
    """
    for types, seconds, needs_probe in conn.execute(BREAKERS_OF, (account,)).fetchall():
        held = [task for task, type in due if types is None or type in types]
        if needs_probe:
            del held[:1]
        _postpone(conn, held, max(seconds, MIN_POSTPONEMENT_SECONDS))
        due = [each for each in due if each[0] not in held]
    return [task for task, _ in due]


def _postpone(conn: Conn, tasks: Sequence[int], seconds: float = MAX_DEFERRAL_SECONDS) -> None:
    if tasks:
        conn.execute(POSTPONE, (seconds, list(tasks)))
