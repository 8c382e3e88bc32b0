"""Actions of people on tasks and runs: retry or discard stopped tasks, and cancel a run.

A stopped task is parked, deferred or cancelled, and has no copy in another run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from core.db.indexed import IS_STOPPED
from core.db.pool import Conn
from core.errors import NotFound, WrongState
from core.ledger import quotas
from core.ledger.carry_over import copy_tasks
from core.ledger.completion import COUNTS, RECORD_COUNTS, TASKS_OF_RUN
from core.ledger.opening import open_run
from core.results.text import json_text
from core.states import (
    STOPPED_TASKS,
    TASKS,
    AccountState,
    Lane,
    RunState,
    TaskState,
    Trigger,
    literals,
)

LOCK_ACCOUNTS_OF_TASKS = """
SELECT id, user_id FROM user_integration
WHERE id IN (SELECT user_integration_id FROM sync_task WHERE id = ANY(%s))
ORDER BY id FOR NO KEY UPDATE
"""
# Served by `sync_run_open`.
OPEN_LANES = f"""
SELECT user_integration_id, lane FROM sync_run
WHERE user_integration_id = ANY(%s) AND state = '{RunState.RUNNING}'
"""
LOCK_TASKS_TO_RETRY = """
SELECT id, user_integration_id, lane, state, retried_as
FROM sync_task WHERE id = ANY(%s) ORDER BY id FOR UPDATE
"""
EDIT_PAYLOAD = "UPDATE sync_task SET payload = %s WHERE id = %s"
DISCARDED = "discarded by hand"
"""The beginning of the reason of a discarded task."""

DISCARD = f"""
UPDATE sync_task SET state = '{TaskState.DONE}',
    reason = '{DISCARDED}: ' || coalesce(reason, ''), finished_at = now()
WHERE id = ANY(%s) AND {IS_STOPPED}
RETURNING id
"""
EXISTING_TASKS = "SELECT id FROM sync_task WHERE id = ANY(%s)"
LOCK_OPEN_TASKS = f"""
SELECT id FROM sync_task WHERE integration_domain = %(domain)s AND user_integration_id = %(account)s
    AND lane = %(lane)s
  AND run_id = %(run)s AND state IN ({literals(TASKS.open)}) ORDER BY id FOR UPDATE
"""
CANCEL_TASKS = f"""
UPDATE sync_task SET state = '{TaskState.CANCELLED}', lease_until = NULL, finished_at = now(),
    available_at = least(available_at, now())
WHERE id = ANY(%s)
"""
LOCK_RUN_TO_CANCEL = """
SELECT user_integration_id, integration_domain, lane, state FROM sync_run WHERE id = %s FOR UPDATE
"""
CANCEL_RUN = f"""
UPDATE sync_run r SET state = '{RunState.CANCELLED}', {RECORD_COUNTS}, error = 'cancelled by hand'
FROM (SELECT {COUNTS} FROM {TASKS_OF_RUN}) c
WHERE r.id = %(run)s AND r.state = '{RunState.RUNNING}'
"""
NEXT_SYNC = f"""
UPDATE user_integration SET next_sync_at = clock_timestamp() + poll_interval_minutes
    * interval '1 minute'
WHERE id = %s AND sync_status <> '{AccountState.DISCONNECTED}'
"""


def retry(conn: Conn, tasks: Sequence[int]) -> list[int]:
    """Insert copies of stopped tasks into the open run of their account.

    If no run is open in the lane of a task, a new one is opened. Locks, in this order: the
    accounts, the tasks, the numbers of their users, the runs FOR SHARE.

    Returns:
      The ids of the copies.

    Raises:
      NotFound: A task does not exist.
      WrongState: A task is not deferred, parked or cancelled, or already has a copy.
      QuotaReached: The user of a task has no run left on this day, or too much content.
    """
    with conn.transaction():
        owners = conn.execute(LOCK_ACCOUNTS_OF_TASKS, (list(tasks),)).fetchall()
        users: dict[UUID, str] = dict(owners)
        rows = conn.execute(LOCK_TASKS_TO_RETRY, (list(tasks),)).fetchall()
        _require_all(tasks, [row[0] for row in rows])
        by_run: dict[tuple[UUID, str], list[int]] = {}
        for task, account, lane, state, retried_as in rows:
            if state not in STOPPED_TASKS:
                raise WrongState("task-not-parked", task=task)
            if retried_as is not None:
                raise WrongState("task-retried", task=task, copy=retried_as)
            by_run.setdefault((account, lane), []).append(task)
        open_lanes = set(conn.execute(OPEN_LANES, (list(users),)).fetchall())
        wanted = Counter(users[account] for account, lane in by_run.keys() - open_lanes)
        quotas.take_runs(conn, wanted)
        copies = []
        for (account, lane), named in sorted(by_run.items()):
            run = open_run(conn, account, lane=lane, trigger=Trigger.RETRY)
            copies += copy_tasks(conn, run, named, roots=True)
        return sorted(copies)


def retry_edited(conn: Conn, task: int, payload: Mapping[str, Any]) -> int:
    """Retry a stopped task as `retry` does, with another payload. The key of the task stays.

    Returns:
      The id of the copy.

    Raises:
      NotFound, QuotaReached: As for `retry`.
      WrongState: As for `retry`; or the open run of the account has the same task already.
    """
    with conn.transaction():
        copies = retry(conn, [task])
        if not copies:
            raise WrongState("task-step-open", task=task)
        conn.execute(EDIT_PAYLOAD, (json_text(payload), copies[0]))
    return copies[0]


def discard(conn: Conn, tasks: Sequence[int]) -> list[int]:
    """Close stopped tasks for good. Their content may be missing.

    Returns:
      The ids of the tasks.

    Raises:
      NotFound: A task does not exist.
      WrongState: A task is not deferred, parked or cancelled, or already has a copy.
    """
    with conn.transaction():
        dropped = [task for (task,) in conn.execute(DISCARD, (list(tasks),))]
        missing = set(tasks) - set(dropped)
        if missing:
            _require_all(tasks, [task for (task,) in conn.execute(EXISTING_TASKS, (list(tasks),))])
            raise WrongState("task-not-parked", task=min(missing))
    return dropped


def _require_all(requested: Sequence[int], existing: Sequence[int]) -> None:
    missing = set(requested) - set(existing)
    if missing:
        raise NotFound("task-not-found", task=min(missing))


def cancel_run(conn: Conn, run: UUID) -> None:
    """End a run now.

    Its open tasks resume in the account's next run. The fence refuses results of running tasks.

    Raises:
      NotFound: The run does not exist.
      WrongState: The run has already ended.
    """
    peek = conn.execute(
        "SELECT user_integration_id, integration_domain, lane FROM sync_run WHERE id = %s", (run,)
    ).fetchone()
    if peek is None:
        raise NotFound("run-not-found", run=run)
    account, domain, lane = peek
    params = {"run": run, "account": account, "domain": domain, "lane": lane}
    with conn.transaction():
        conn.execute("SELECT id FROM user_integration WHERE id = %s FOR NO KEY UPDATE", (account,))
        # Savers lock tasks before runs. They may add tasks before this transaction locks the run,
        # so the loop below repeats until no task is open.
        conn.execute(LOCK_OPEN_TASKS, params)
        locked = conn.execute(LOCK_RUN_TO_CANCEL, (run,)).fetchone()
        if locked is None or locked[3] != RunState.RUNNING:
            raise WrongState("run-ended", state=locked[3] if locked else "nothing")
        while tasks := [task for (task,) in conn.execute(LOCK_OPEN_TASKS, params)]:
            conn.execute(CANCEL_TASKS, (tasks,))
        conn.execute(CANCEL_RUN, params)
        if lane == Lane.LIVE:
            conn.execute(NEXT_SYNC, (account,))
