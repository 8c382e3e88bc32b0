"""Actions of people on tasks and runs: retry or discard parked tasks, and cancel a run."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from core.db.pool import Conn
from core.errors import NotFound, WrongState
from core.ledger.scheduling import open_run
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

LOCK_TASKS_TO_RETRY = """
SELECT id, run_id, user_integration_id, lane, state, retried_as
FROM sync_task WHERE id = ANY(%s) ORDER BY id FOR UPDATE
"""
COPY = """
INSERT INTO sync_task (
    run_id, user_integration_id, integration_domain, lane, retry_of, type, payload,
    dedup_key, priority, carried)
SELECT %(run)s, user_integration_id, integration_domain, lane, id, type, payload,
    CASE WHEN run_id = %(run)s
        THEN decode(md5(id::text || dispatch_no::text), 'hex') ELSE dedup_key END,
    priority, true
FROM sync_task WHERE id = %(task)s
ON CONFLICT (run_id, dedup_key) DO NOTHING RETURNING id
"""
RETRIED = """
UPDATE sync_task t SET retried_as = coalesce(%(copy)s, (SELECT o.id FROM sync_task o
    WHERE o.run_id = %(run)s AND o.dedup_key = t.dedup_key AND o.id <> t.id), t.id)
WHERE t.id = %(task)s
"""
DISCARD = f"""
UPDATE sync_task SET state = '{TaskState.DONE}',
    reason = 'discarded by hand: ' || coalesce(reason, ''), finished_at = now()
WHERE id = ANY(%s) AND state IN ({literals(STOPPED_TASKS)}) AND retried_as IS NULL
RETURNING id
"""
LOCK_OPEN_TASKS = f"""
SELECT id FROM sync_task WHERE integration_domain = %(domain)s AND user_integration_id = %(account)s
    AND lane = %(lane)s
  AND run_id = %(run)s AND state IN ({literals(TASKS.open)}) ORDER BY id FOR UPDATE
"""
CANCEL_TASKS = f"""
UPDATE sync_task SET state = '{TaskState.CANCELLED}', lease_until = NULL, finished_at = now()
WHERE id = ANY(%s)
"""
LOCK_RUN_TO_CANCEL = """
SELECT user_integration_id, integration_domain, lane, state FROM sync_run WHERE id = %s FOR UPDATE
"""
CANCEL_RUN = f"""
UPDATE sync_run r SET state = '{RunState.CANCELLED}', finished_at = clock_timestamp(),
    tasks_done = c.done, tasks_parked = c.parked,
    outputs_saved = c.saved, outputs_unchanged = c.unchanged, outputs_deleted = c.deleted,
    error = 'cancelled by hand'
FROM (SELECT count(*) FILTER (WHERE state = '{TaskState.DONE}') AS done,
    count(*) FILTER (WHERE state = '{TaskState.PARKED}') AS parked,
        coalesce(sum(outputs_saved), 0) AS saved, coalesce(sum(outputs_unchanged), 0) AS unchanged,
        coalesce(sum(outputs_deleted), 0) AS deleted FROM sync_task WHERE run_id = %(run)s) c
WHERE r.id = %(run)s AND r.state = '{RunState.RUNNING}'
"""
NEXT_SYNC = f"""
UPDATE user_integration SET next_sync_at = clock_timestamp() + poll_interval_minutes
    * interval '1 minute'
WHERE id = %s AND sync_status <> '{AccountState.DISCONNECTED}'
"""


def retry(conn: Conn, tasks: Sequence[int]) -> list[int]:
    """Insert copies of parked or cancelled tasks into the open run of their account.

    If no run is open in the lane of a task, a new one is opened.

    Returns:
      The ids of the copies.

    Raises:
      NotFound: A task does not exist.
      WrongState: A task is neither parked nor cancelled, or already has a copy.
    """
    with conn.transaction():
        rows = conn.execute(LOCK_TASKS_TO_RETRY, (list(tasks),)).fetchall()
        _require_all(tasks, [row[0] for row in rows])
        for task, _, _, _, state, retried_as in rows:
            if state not in STOPPED_TASKS:
                raise WrongState("task-not-parked", task=task)
            if retried_as is not None:
                raise WrongState("task-retried", task=task, copy=retried_as)
        return [copy for row in rows if (copy := _copy(conn, row[0], row[2], row[3])) is not None]


def _copy(conn: Conn, task: int, account: UUID, lane: str) -> int | None:
    """Copy a task, which the caller has locked, into the open run of its lane.

    Returns:
      The id of the copy; None if the run already has the same task.
    """
    run = open_run(conn, account, lane=lane, trigger=Trigger.RETRY)
    row = conn.execute(COPY, {"run": run, "task": task}).fetchone()
    copy = row[0] if row else None
    conn.execute(RETRIED, {"copy": copy, "run": run, "task": task})
    return copy


def discard(conn: Conn, tasks: Sequence[int]) -> list[int]:
    """Close parked or cancelled tasks for good. Their content may be missing.

    Returns:
      The ids of the tasks.

    Raises:
      WrongState: A task is neither parked nor cancelled, or already has a copy.
    """
    with conn.transaction():
        dropped = [task for (task,) in conn.execute(DISCARD, (list(tasks),))]
        missing = set(tasks) - set(dropped)
        if missing:
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
        if locked is None or locked[3] != "running":
            raise WrongState("run-ended", state=locked[3] if locked else "nothing")
        while tasks := [task for (task,) in conn.execute(LOCK_OPEN_TASKS, params)]:
            conn.execute(CANCEL_TASKS, (tasks,))
        conn.execute(CANCEL_RUN, params)
        if lane == Lane.LIVE:
            conn.execute(NEXT_SYNC, (account,))
