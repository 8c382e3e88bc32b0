"""Making runs: for accounts that are due, and for people who ask. Plugin code never runs here."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID, uuid4

from core.db.pool import Conn
from core.errors import NotFound, WrongState
from core.integration.base import START
from core.states import STOPPED_TASKS, AccountState, Lane, RunState, TaskState, Trigger, literals

_NO_PAYLOAD = "'{}'"
ROOT_KEY = hashlib.blake2b(START.encode(), digest_size=16).digest()

# Claims due accounts and makes their runs and root tasks, in one statement. Accounts that another
# scheduler is claiming are skipped; the unique index on open runs decides the rest. Served by
# `user_integration_due` and `sync_run_open`.
CLAIM_DUE = f"""
WITH due AS (
    SELECT a.id, a.integration_domain, a.resync_due, a.forget_state FROM user_integration a
    WHERE a.sync_status = '{AccountState.ACTIVE}' AND a.next_sync_at <= clock_timestamp()
      AND NOT EXISTS (SELECT FROM sync_run r
          WHERE r.user_integration_id = a.id AND r.lane = '{Lane.LIVE}'
            AND r.state = '{RunState.RUNNING}')
    ORDER BY a.next_sync_at LIMIT %(batch)s FOR NO KEY UPDATE OF a SKIP LOCKED
), run AS (
    INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, start_seq)
    SELECT gen_random_uuid(), due.id, due.integration_domain, '{Lane.LIVE}',
        CASE WHEN due.resync_due THEN '{Trigger.RESYNC}' ELSE '{Trigger.SCHEDULE}' END,
        (SELECT last_value FROM dispatch_seq)
    FROM due
    ON CONFLICT (user_integration_id, lane) WHERE state = '{RunState.RUNNING}' DO NOTHING
    RETURNING id, user_integration_id, integration_domain, lane
), root AS (
    INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
        dedup_key)
    SELECT id, user_integration_id, integration_domain, lane, '{START}', {_NO_PAYLOAD}, %(root)s
    FROM run
), claimed AS (
    UPDATE user_integration a SET
        resync_due = false, forget_state = false,
        next_sync_at = clock_timestamp() + a.poll_interval_minutes * interval '1 minute'
    FROM run WHERE a.id = run.user_integration_id
)
SELECT run.id, run.user_integration_id, due.forget_state
FROM run JOIN due ON due.id = run.user_integration_id
"""

TICK = "UPDATE ledger SET last_tick_at = clock_timestamp()"

LOCK_ACCOUNT = """
SELECT sync_status, integration_domain, resync_due, forget_state
FROM user_integration WHERE id = %s FOR NO KEY UPDATE
"""
JOIN_OPEN_RUN = f"""
UPDATE sync_run SET allow_deletions = allow_deletions OR %(allow)s
WHERE user_integration_id = %(account)s AND lane = %(lane)s AND state = '{RunState.RUNNING}'
RETURNING id
"""
OPEN_RUN = """
INSERT INTO sync_run (
    id, user_integration_id, integration_domain, lane, trigger, start_seq, allow_deletions)
SELECT %(id)s, %(account)s, %(domain)s, %(lane)s, %(trigger)s, last_value, %(allow)s
FROM dispatch_seq
"""
OPEN_RUN_OR_NONE = f"""
{OPEN_RUN} ON CONFLICT (user_integration_id, lane) WHERE state = '{RunState.RUNNING}' DO NOTHING
"""
ADD_ROOT = f"""
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key)
VALUES (%(id)s, %(account)s, %(domain)s, %(lane)s, '{START}', {_NO_PAYLOAD}, %(root)s)
"""
SHARE_OPEN_RUN = f"""
SELECT id FROM sync_run WHERE user_integration_id = %s AND lane = %s
    AND state = '{RunState.RUNNING}' FOR SHARE
"""
# Only a listing answers what is held, and a plugin that has a cursor lists in a resync alone.
HELD = "SELECT 1 FROM held_deletion WHERE user_integration_id = %s LIMIT 1"
RESYNC_TAKEN = "UPDATE user_integration SET resync_due = false, forget_state = false WHERE id = %s"
RESYNC_DUE = """
UPDATE user_integration SET resync_due = true, forget_state = true, next_sync_at = now()
WHERE id = %s
"""

# The rows stay, so that a writer dispatched earlier cannot bring a cursor back.
DROP_STATE = """
UPDATE sync_state SET
    value = NULL, version = version + 1, dispatch_seq = nextval('dispatch_seq'), updated_at = now()
WHERE user_integration_id = %s AND value IS NOT NULL
"""

# Tasks of cancelled runs, and parked ones that have been tried again by themselves less than three
# times, go on in the new run:
# as copies, which conflict with nothing the run already has. Three statements: as one, it compared
# every task with every copy.
TO_CARRY = f"""
SELECT t.id FROM sync_task t JOIN sync_run r ON r.id = t.run_id
WHERE t.user_integration_id = %(account)s AND t.lane = %(lane)s AND t.retried_as IS NULL
  AND t.run_id <> %(run)s
  AND (t.state = '{TaskState.CANCELLED}'
    OR t.state = '{TaskState.PARKED}' AND t.auto_retries < 3 AND r.state <> '{RunState.RUNNING}')
ORDER BY t.id FOR UPDATE OF t
"""
CARRY = f"""
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, retry_of, type,
    payload, dedup_key, priority,
    auto_retries, carried)
SELECT DISTINCT ON (dedup_key) %(run)s, user_integration_id, integration_domain, lane, id, type,
    payload, dedup_key, priority,
    auto_retries + CASE WHEN state = '{TaskState.PARKED}' THEN 1 ELSE 0 END, true
FROM sync_task WHERE id = ANY(%(tasks)s) AND type <> '{START}' ORDER BY dedup_key, id
ON CONFLICT (run_id, dedup_key) DO NOTHING
"""
# Each probes the unique index on (run_id, dedup_key).
CARRIED = """
UPDATE sync_task t SET retried_as = coalesce(
    (SELECT again.id FROM sync_task again
     WHERE again.run_id = %(run)s AND again.dedup_key = t.dedup_key),
    t.id)
WHERE t.id = ANY(%(tasks)s)
"""
# Served by `sync_task_stopped`: most accounts have nothing to carry on.
STOPPED = f"""
SELECT DISTINCT user_integration_id FROM sync_task
WHERE user_integration_id = ANY(%s) AND state IN ({literals(STOPPED_TASKS)})
  AND retried_as IS NULL
"""
CARRIED_BACKFILL = f"""
SELECT EXISTS (SELECT FROM sync_task t JOIN sync_run r ON r.id = t.run_id
    WHERE t.user_integration_id = %s AND t.lane = '{Lane.BACKFILL}' AND t.retried_as IS NULL
      AND r.state <> '{RunState.RUNNING}'
      AND (t.state = '{TaskState.CANCELLED}'
        OR t.state = '{TaskState.PARKED}' AND t.auto_retries < 3))
"""


def claim_due(conn: Conn, batch: int) -> list[tuple[UUID, UUID]]:
    """Make runs for accounts that are due, at most `batch` of them. Returns (run, account) of each.

    Two schedulers, or two ticks, make one run.
    """
    with conn.transaction():
        rows = conn.execute(CLAIM_DUE, {"batch": batch, "root": ROOT_KEY}).fetchall()
        for _, account, forget in rows:
            if forget:
                conn.execute(DROP_STATE, (account,))
        claimed = [(run, account) for run, account, _ in rows]
        stopped = {
            account for (account,) in conn.execute(STOPPED, ([account for _, account in claimed],))
        }
        for run, account in claimed:
            if account in stopped:
                _carry_on(conn, run, account)
    return claimed


def poll(conn: Conn, batch: int) -> int:
    """Make runs until no account is due. Returns how many."""
    made = 0
    while claimed := claim_due(conn, batch):
        made += len(claimed)
    return made


def _carry_on(conn: Conn, run: UUID, account: UUID) -> None:
    _carry(conn, run, account, Lane.LIVE)
    waiting = conn.execute(CARRIED_BACKFILL, (account,)).fetchone()
    if waiting is not None and waiting[0]:
        backfill = open_run(conn, account, lane=Lane.BACKFILL, trigger=Trigger.RETRY, root=False)
        _carry(conn, backfill, account, Lane.BACKFILL)


def _carry(conn: Conn, run: UUID, account: UUID, lane: str) -> None:
    names: dict[str, Any] = {"run": run, "account": account, "lane": lane}
    names["tasks"] = [task for (task,) in conn.execute(TO_CARRY, names)]
    if names["tasks"]:
        conn.execute(CARRY, names)
        conn.execute(CARRIED, names)


def request_run(
    conn: Conn, account: UUID, *, trigger: str = Trigger.MANUAL, allow_deletions: bool = False
) -> tuple[UUID, bool]:
    """Start a live run of this account now, or return the open one.

    Returns its id and whether it is new.

    Raises:
      NotFound: There is no such account.
      InvalidInput: The account is paused, in error or disconnected.
    """
    with conn.transaction():
        domain, resync_due, forget = _lock_active(conn, account)
        names: dict[str, Any] = {"account": account, "lane": Lane.LIVE, "allow": allow_deletions}
        joined = conn.execute(JOIN_OPEN_RUN, names).fetchone()
        if joined is not None:
            return joined[0], False
        if trigger == Trigger.MANUAL and (
            resync_due or (allow_deletions and conn.execute(HELD, (account,)).fetchone())
        ):
            trigger = Trigger.RESYNC
        run = uuid4()
        names |= {"id": run, "domain": domain, "trigger": trigger, "root": ROOT_KEY}
        conn.execute(OPEN_RUN, names)
        conn.execute(ADD_ROOT, names)
        if forget:
            conn.execute(DROP_STATE, (account,))
        conn.execute(RESYNC_TAKEN, (account,))
        _carry_on(conn, run, account)
    return run, True


def request_resync(conn: Conn, account: UUID) -> tuple[UUID, bool]:
    """Drop all cursors of an account and list everything again.

    A run that is open ends first; then the resync begins.
    """
    with conn.transaction():
        _lock_active(conn, account)
        conn.execute(RESYNC_DUE, (account,))
    return request_run(conn, account, trigger=Trigger.RESYNC)


def open_run(conn: Conn, account: UUID, *, lane: str, trigger: str, root: bool) -> UUID:
    """The open run of a lane, share-locked, or a new one. Called inside a transaction."""
    row = conn.execute(
        "SELECT integration_domain FROM user_integration WHERE id = %s", (account,)
    ).fetchone()
    if row is None:
        raise NotFound("account-not-found", account=account)
    names: dict[str, Any] = {
        "id": uuid4(),
        "account": account,
        "lane": lane,
        "domain": row[0],
        "trigger": trigger,
    }
    names |= {"allow": False, "root": ROOT_KEY}
    made = conn.execute(OPEN_RUN_OR_NONE, names).rowcount
    if made and root:
        conn.execute(ADD_ROOT, names)
    found = conn.execute(SHARE_OPEN_RUN, (account, lane)).fetchone()
    if found is None:
        return open_run(conn, account, lane=lane, trigger=trigger, root=root)
    run: UUID = found[0]
    return run


def _lock_active(conn: Conn, account: UUID) -> tuple[str, bool, bool]:
    """The account's domain, and whether a resync is due and cursors are to be forgotten."""
    row = conn.execute(LOCK_ACCOUNT, (account,)).fetchone()
    if row is None:
        raise NotFound("account-not-found", account=account)
    if row[0] != "active":
        raise _not_active(row[0], account)
    return row[1], row[2], row[3]


def _not_active(status: str, account: UUID) -> WrongState:
    match status:
        case AccountState.PAUSED:
            return WrongState("account-paused", account=account)
        case AccountState.DISCONNECTED:
            return WrongState("account-disconnected", account=account)
    return WrongState("account-stopped", account=account)
