"""Continue tasks that ended without a result, as copies in a later run.

A run that starts continues the tasks of cancelled runs, and the deferred tasks that are due. The
transaction that opens it copies the first ones, and the leader copies the rest, in portions. The
leader also continues deferred tasks that become due between two runs. A person continues parked
tasks: see `core.ledger.controls`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from core.db.indexed import IS_CARRIED, IS_DEFERRED
from core.db.pool import Conn
from core.integration.base import START
from core.ledger.breakers import MIN_POSTPONEMENT_SECONDS, PROBE_DUE
from core.ledger.opening import open_run
from core.ledger.pauses import PAUSED_DOMAINS
from core.results.decisions import MAX_DEFERRAL_SECONDS
from core.states import AccountState, Lane, RunState, TaskState, Trigger, literals

PAUSED_INTEGRATION_SECONDS = 900.0
"""Seconds for which the deferred tasks of a paused integration are postponed at a time."""

MAX_CARRIED_IN_CLAIM = 100
"""The number of tasks that one lane takes over in the transaction that opens its run."""

PORTION = 500
"""The number of tasks that one transaction of the leader moves to another run."""

# Most accounts owe nothing.
OWING = f"""
SELECT account.id FROM unnest(%s::uuid[]) AS account(id)
WHERE EXISTS (SELECT FROM sync_task t WHERE t.user_integration_id = account.id
    AND t.lane IN ({literals(Lane)}) AND {IS_CARRIED})
"""
WAITING_BACKFILL = f"""
SELECT EXISTS (SELECT FROM sync_task WHERE user_integration_id = %(account)s
    AND lane = '{Lane.BACKFILL}' AND {IS_CARRIED} AND available_at <= %(until)s)
"""
# A portion of the tasks that are due, in the order of the index. A portion without a beginning
# starts with the earliest.
NEXT_PORTION = f"""
SELECT available_at, id FROM sync_task
WHERE user_integration_id = %(account)s AND lane = %(lane)s AND {IS_CARRIED}
  AND available_at <= %(until)s AND (available_at, id) > (%(at)s, %(id)s)
ORDER BY available_at, id LIMIT %(most)s
"""
# Every transaction locks tasks by id.
LOCK_PORTION = f"""
SELECT id FROM sync_task WHERE id = ANY(%(tasks)s) AND {IS_CARRIED} AND run_id <> %(run)s
ORDER BY id FOR UPDATE
"""
# A deferred root is replaced by the root of the new run. Served by `sync_task_deferred_root`.
DEFERRED_ROOTS = f"""
SELECT id FROM sync_task WHERE user_integration_id = %(account)s AND lane = %(lane)s
    AND {IS_DEFERRED} AND type = '{START}'
    AND run_id <> %(run)s
"""
DATABASE_TIME = "SELECT clock_timestamp()"

# A run does not end while it carries. If it carries already, it starts again.
CARRY = """
UPDATE sync_run SET carry_until = greatest(carry_until, %(until)s), carried_at = %(at)s,
    carried_id = %(id)s
WHERE id = %(run)s
"""
# Open runs: only `sync_run_carries` can serve a condition that does not name the state (ADR 0095).
CARRYING = """
SELECT id, user_integration_id, lane FROM sync_run
WHERE finished_at IS NULL AND carry_until IS NOT NULL
ORDER BY user_integration_id, lane LIMIT 100
"""
CARRIED_SO_FAR = f"""
SELECT carry_until, carried_at, carried_id FROM sync_run
WHERE id = %s AND state = '{RunState.RUNNING}' AND carry_until IS NOT NULL
"""
ADVANCE_CARRYING = f"""
UPDATE sync_run SET carry_until = %(until)s, carried_at = %(at)s, carried_id = %(id)s
WHERE id = %(run)s AND state = '{RunState.RUNNING}' RETURNING id
"""

# A run has one task of each key. A copy within the run of its original gets a key of its own, and
# its listing is compared. A task that a person retries has a new history: its deferrals and first
# failure are not copied.
COPY_TASKS = f"""
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, retry_of, type,
    payload, dedup_key, priority, deferrals, first_failed_at, carried)
SELECT DISTINCT ON (t.key) %(run)s, t.user_integration_id, t.integration_domain, t.lane, t.id,
    t.type, t.payload, t.key, t.priority,
    CASE WHEN t.state <> '{TaskState.PARKED}' THEN t.deferrals ELSE 0 END,
    CASE WHEN t.state <> '{TaskState.PARKED}' THEN t.first_failed_at END,
    t.carried OR t.run_id <> %(run)s
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
SELECT user_integration_id, lane, array_agg(id) FROM (
    SELECT id, user_integration_id, lane FROM sync_task
    WHERE {IS_DEFERRED}
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
WHERE id = ANY(%s) AND {IS_DEFERRED}
  AND available_at <= clock_timestamp()
ORDER BY id FOR UPDATE
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
POSTPONE_DEFERRED = """
UPDATE sync_task SET available_at = clock_timestamp() + %s * interval '1 second' WHERE id = ANY(%s)
"""
POLL_SOON = """
UPDATE user_integration SET next_sync_at = least(next_sync_at, clock_timestamp()) WHERE id = %s
"""


_BEGINNING: dict[str, Any] = {"at": datetime(1970, 1, 1, tzinfo=UTC), "id": 0}
"""The place before all tasks."""

_ALL_DEFERRED = datetime(9000, 1, 1, tzinfo=UTC)
"""A time by which every deferred task is due."""


def owing(conn: Conn, accounts: Sequence[UUID]) -> set[UUID]:
    """Return those of these accounts that have deferred or cancelled tasks without a copy."""
    return {account for (account,) in conn.execute(OWING, (list(accounts),))}


def continue_tasks(conn: Conn, run: UUID, account: UUID, *, all_deferred: bool = False) -> None:
    """Let a new live run, and the open backfill run, take over the tasks of earlier runs.

    Copies at most `MAX_CARRIED_IN_CLAIM` tasks of each lane. If there are more, `carry_on` copies
    them later. Locks, in this order: the live tasks, the live run, the backfill run, its tasks.

    Args:
      conn: A connection in a transaction.
      run: The new live run.
      account: Its account; the caller has locked it.
      all_deferred: True to copy deferred tasks before they are due. Default: False.
    """
    ((now,),) = conn.execute(DATABASE_TIME)
    until = _ALL_DEFERRED if all_deferred else now
    params: dict[str, Any] = {"run": run, "account": account, "until": until}
    _begin(conn, {**params, "lane": Lane.LIVE})
    waiting = conn.execute(WAITING_BACKFILL, params).fetchone()
    if waiting is not None and waiting[0]:
        backfill = open_run(conn, account, lane=Lane.BACKFILL, trigger=Trigger.RETRY)
        _begin(conn, {**params, "run": backfill, "lane": Lane.BACKFILL})


def _begin(conn: Conn, params: dict[str, Any]) -> None:
    """Copy the first tasks of a lane, and mark the run if there may be more."""
    roots = [task for (task,) in conn.execute(DEFERRED_ROOTS, params)]
    portion = conn.execute(
        NEXT_PORTION, {**params, **_BEGINNING, "most": MAX_CARRIED_IN_CLAIM}
    ).fetchall()
    if tasks := _lock(conn, params["run"], [*roots, *(task for _, task in portion)]):
        copy_tasks(conn, params["run"], tasks)
    if len(portion) == MAX_CARRIED_IN_CLAIM:
        at, id = portion[-1]
        conn.execute(CARRY, {**params, "at": at, "id": id})


def _lock(conn: Conn, run: UUID, tasks: list[int]) -> list[int]:
    """Lock those of these tasks that a run may take over."""
    params = {"tasks": tasks, "run": run}
    return [task for (task,) in conn.execute(LOCK_PORTION, params)] if tasks else []


def carry_on(conn: Conn, seconds: float) -> bool:
    """Move portions of tasks into the open runs that have not taken over all of them yet.

    Each portion is a transaction, which costs what it moves. A run whose account is locked has its
    turn in a later call.

    Args:
      conn: A connection in autocommit mode.
      seconds: The time after which no further portion begins. The first one always does.

    Returns:
      True if there may be more.
    """
    deadline, more = time.monotonic() + seconds, False
    runs = conn.execute(CARRYING).fetchall()
    random.shuffle(runs)
    for number, (run, account, lane) in enumerate(runs, 1):
        with conn.transaction():
            more |= _carry_portion(conn, run, account, lane)
        if time.monotonic() >= deadline:
            return more or number < len(runs)
    return more


def _carry_portion(conn: Conn, run: UUID, account: UUID, lane: str) -> bool:
    """Move one portion. Locks the account, its tasks by id, then the run."""
    if conn.execute(LOCK_ACCOUNT_IF_FREE, (account,)).fetchone() is None:
        return False
    place = conn.execute(CARRIED_SO_FAR, (run,)).fetchone()
    if place is None:
        return False
    params: dict[str, Any] = {"run": run, "account": account, "lane": lane, "most": PORTION}
    params |= dict(zip(("until", "at", "id"), place, strict=True))
    portion = conn.execute(NEXT_PORTION, params).fetchall()
    tasks = _lock(conn, run, [task for _, task in portion])
    full = len(portion) == PORTION
    if portion:
        params["at"], params["id"] = portion[-1]
    if (
        conn.execute(ADVANCE_CARRYING, params if full else params | {"until": None}).fetchone()
        is None
    ):
        return False
    if tasks:
        copy_tasks(conn, run, tasks)
    return full


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
    for account, lane, tasks in due:
        with conn.transaction():
            _continue_deferred(conn, account, lane, tasks)
    return sum(len(tasks) for _, _, tasks in due)


def _continue_deferred(conn: Conn, account: UUID, lane: str, tasks: list[int]) -> None:
    """Continue the due tasks of one lane. Locks the account, its tasks by id, then the run."""
    status = conn.execute(LOCK_ACCOUNT_IF_FREE, (account,)).fetchone()
    if status is None:
        return
    due = conn.execute(LOCK_DUE_TASKS, (tasks,)).fetchall()
    if status[0] != AccountState.ACTIVE:
        _postpone(conn, [task for task, _ in due])
        return
    if status[1]:
        _postpone(conn, [task for task, _ in due], PAUSED_INTEGRATION_SECONDS)
        return
    if roots := [task for task, type in due if type == START]:
        _postpone(conn, roots)
        poll_soon(conn, account)
    if ours := _let_through(conn, account, [task for task in due if task[1] != START]):
        run = open_run(conn, account, lane=lane, trigger=Trigger.RETRY)
        copy_tasks(conn, run, ours)


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
        conn.execute(POSTPONE_DEFERRED, (seconds, list(tasks)))
