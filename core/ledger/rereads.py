"""Rereads: opening them, and the tasks that read kept items again.

A reread is a chain of tasks in the account's backfill run. Each reads a portion of the items, in
the order of their ids, and returns the task for the next portion. So one thread of the fleet works
for an account at a time, and a kill costs one portion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from core.db.pool import Conn
from core.errors import NotFound, WrongState
from core.integration.base import REREAD
from core.ledger import quotas
from core.ledger.leadership import LAST_SEQUENCE
from core.ledger.opening import not_active, open_run
from core.ledger.pauses import PAUSED_DOMAINS
from core.ledger.processes import IS_LIVE_WORKER
from core.results.result import task_key
from core.results.rows import TaskRow
from core.results.text import json_text
from core.states import AccountState, Lane, RunState, TaskState, Trigger

PRIORITY = -(2**30)
"""The priority of the tasks: within an account, everything else runs first."""

MAX_OPEN = 8
"""The number of open reread runs of an integration up to which the leader opens more."""

# The version of the reader is that of the live workers, or that of the latest one.
LOCK_REREAD_ACCOUNT = f"""
SELECT a.sync_status, a.integration_domain, a.config_version, coalesce(
    (SELECT max((p.readers->>a.integration_domain)::int) FROM process p
        WHERE {IS_LIVE_WORKER} AND a.integration_domain = ANY (p.queues)),
    (SELECT i.reader_version FROM integration i WHERE i.domain = a.integration_domain), 0),
    a.user_id
FROM user_integration a WHERE a.id = %s FOR NO KEY UPDATE OF a
"""
ADD_REREAD = f"""
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key, priority)
VALUES (%(run)s, %(account)s, %(domain)s, '{Lane.BACKFILL}', '{REREAD}', %(payload)s, %(key)s,
    {PRIORITY})
ON CONFLICT (run_id, dedup_key) DO NOTHING
"""
# The latest step of an open reread. `sync_task_ready` and `sync_task_queued` serve it: among the
# ready tasks of the account, those of a reread are the last.
OPEN_REREAD = f"""
SELECT t.run_id FROM (
    (SELECT run_id, type, payload FROM sync_task WHERE state = '{TaskState.READY}'
        AND integration_domain = %(domain)s AND user_integration_id = %(account)s
        AND lane = '{Lane.BACKFILL}' AND priority = {PRIORITY})
    UNION ALL
    (SELECT run_id, type, payload FROM sync_task WHERE state = '{TaskState.QUEUED}'
        AND integration_domain = %(domain)s AND user_integration_id = %(account)s
        AND lane = '{Lane.BACKFILL}')
) t
WHERE t.type = '{REREAD}' AND t.payload->>'ids' IS NULL
  AND (t.payload->>'reader')::int = %(reader)s AND (t.payload->>'config')::int = %(config)s
LIMIT 1
"""
NOTE_READER = "UPDATE user_integration SET reader_version = %(reader)s WHERE id = %(account)s"

# True while a task of the account runs that was dispatched before a number. Served by
# `sync_task_queued`, which has only what is in flight.
EARLIER = f"""
SELECT EXISTS (SELECT FROM sync_task WHERE state = '{TaskState.QUEUED}'
    AND integration_domain = %(domain)s AND user_integration_id = %(account)s
    AND dispatch_seq <= %(before)s AND id <> %(task)s AND type <> '{REREAD}')
"""

# Integrations whose live workers all have the same reader, if it is newer than the latest reread of
# some active account. The latest registration may be that of an older worker, and a worker of an
# older version of the engine names no readers. `process` has few rows. `user_integration_reader`
# and `sync_run_by_domain` serve the rest.
OUTDATED = f"""
SELECT w.domain, w.version, greatest(0, {MAX_OPEN} - (
    SELECT count(*) FROM (SELECT FROM sync_run r
        WHERE r.integration_domain = w.domain AND r.state = '{RunState.RUNNING}'
          AND r.trigger = '{Trigger.REREAD}' LIMIT {MAX_OPEN}) open))
FROM (
    SELECT domain, max((readers->>domain)::int) AS version
    FROM process CROSS JOIN unnest(queues) AS domain WHERE {IS_LIVE_WORKER}
    GROUP BY domain
    HAVING bool_and(readers->>domain IS NOT NULL) IS TRUE
       AND count(DISTINCT readers->>domain) = 1
) w
WHERE w.version > 0 AND w.domain <> ALL (ARRAY({PAUSED_DOMAINS}))
  AND EXISTS (SELECT FROM user_integration a
      WHERE a.integration_domain = w.domain AND a.reader_version < w.version
        AND a.sync_status = '{AccountState.ACTIVE}')
ORDER BY w.domain
"""
ACCOUNTS_TO_REREAD = f"""
SELECT id FROM user_integration
WHERE integration_domain = %s AND reader_version < %s AND sync_status = '{AccountState.ACTIVE}'
ORDER BY reader_version, id LIMIT %s
"""


def request_reread(conn: Conn, account: UUID, *, counts: bool = False) -> tuple[UUID, bool]:
    """Begin to read the kept items of an account again, or join the open reread.

    The reread is part of the account's backfill run. Locks, in this order: the account, its
    backfill run FOR SHARE.

    Args:
      conn: A connection in autocommit mode or in a transaction.
      account: The account.
      counts: True if a new reread counts as a run of the user. Default: it does not.

    Returns:
      The id of the run, and True if the reread is new.

    Raises:
      NotFound: The account does not exist.
      WrongState: The account is not active, or its integration has no reader.
      QuotaReached: It counts, and its user has no run left on this day, or too much content.
    """
    with conn.transaction():
        row = conn.execute(LOCK_REREAD_ACCOUNT, (account,)).fetchone()
        if row is None:
            raise NotFound("account-not-found", account=account)
        status, domain, config, reader, user = row
        if status != AccountState.ACTIVE:
            raise not_active(status, account)
        if not reader:
            raise WrongState("reread-unsupported", domain=domain, account=account)
        params = {"account": account, "domain": domain, "config": config, "reader": reader}
        conn.execute(NOTE_READER, params)
        joined = conn.execute(OPEN_REREAD, params).fetchone()
        if joined is not None:
            return joined[0], False
        if counts:
            quotas.take_runs(conn, {user: 1})
        run = open_run(conn, account, lane=Lane.BACKFILL, trigger=Trigger.REREAD)
        # A task that was dispatched before may save an item as an older reader, or an older config,
        # read it.
        ((before,),) = conn.execute(LAST_SEQUENCE)
        payload = {"reader": reader, "config": config, "before": before}
        task = _task(payload, f"{reader}-{config}-{before}")
        conn.execute(
            ADD_REREAD,
            params | {"run": run, "payload": json_text(payload), "key": bytes.fromhex(task.key)},
        )
    return run, True


def reread_outdated(conn: Conn) -> int:
    """Begin the rereads of accounts whose content an older reader has read.

    At most `MAX_OPEN` reread runs of an integration are open at a time.

    Returns:
      The number of new rereads.
    """
    begun = 0
    for domain, version, room in conn.execute(OUTDATED).fetchall():
        for (account,) in conn.execute(ACCOUNTS_TO_REREAD, (domain, version, room)).fetchall():
            try:
                request_reread(conn, account)
            except (NotFound, WrongState):
                continue  # someone has paused or erased it in the meantime
            begun += 1
    return begun


def waits_for_earlier(conn: Conn, account: str, domain: str, task: int, before: int) -> bool:
    """Return True while tasks of the account run that were dispatched before a number."""
    params = {"account": account, "domain": domain, "task": task, "before": before}
    row = conn.execute(EARLIER, params).fetchone()
    return row is not None and bool(row[0])


def following(payload: dict[str, Any], after: str) -> TaskRow:
    """Return the task that reads the items after this id."""
    rest = {"reader": payload.get("reader"), "config": payload.get("config"), "after": after}
    return _task(rest, f"{payload.get('key')}-{after}", key=payload.get("key"))


def again(payload: dict[str, Any], ids: Sequence[str], dispatch: str) -> TaskRow:
    """Return a task that reads only these items.

    Args:
      payload: The payload of the task that returns it.
      ids: The items.
      dispatch: The id of that task's dispatch.
    """
    rest = {"reader": payload.get("reader"), "config": payload.get("config"), "ids": list(ids)}
    return _task(rest, f"{dispatch}-{json_text(list(ids))}")


def _task(payload: dict[str, Any], name: str, key: str | None = None) -> TaskRow:
    own = task_key(f"{REREAD}:{name}")
    payload["key"] = key or own
    return TaskRow(REREAD, payload, own, PRIORITY, background=False)
