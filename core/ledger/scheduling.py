"""Opening runs, on schedule and on request. Plugin code never runs here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from core.db.pool import Conn
from core.errors import NotFound
from core.integration.base import START
from core.ledger import breakers, carry_over
from core.ledger.opening import ADD_ROOT, NO_PAYLOAD, OPEN_RUN, ROOT_KEY, not_active
from core.ledger.pauses import PAUSED_DOMAINS
from core.states import AccountState, HeldState, Lane, RunState, Trigger

# Claims due accounts, and inserts their runs and root tasks, in one statement. It skips accounts
# of paused integrations, and accounts that another scheduler has locked. The unique index on open
# runs prevents a second run. Served by `user_integration_due` and `sync_run_open`.
CLAIM_DUE = f"""
WITH due AS (
    SELECT a.id, a.integration_domain, a.resync_due, a.drop_state, a.config_version,
        a.updated_at > coalesce(a.last_sync_at, '-infinity') AS changed,
        clock_timestamp() + a.poll_interval_minutes * interval '1 minute' AS next_sync_at
    FROM user_integration a
    WHERE a.sync_status = '{AccountState.ACTIVE}' AND a.next_sync_at <= clock_timestamp()
      AND a.integration_domain <> ALL (ARRAY({PAUSED_DOMAINS}))
      AND NOT EXISTS (SELECT FROM sync_run r
          WHERE r.user_integration_id = a.id AND r.lane = '{Lane.LIVE}'
            AND r.state = '{RunState.RUNNING}')
    ORDER BY a.next_sync_at LIMIT %(batch)s FOR NO KEY UPDATE OF a SKIP LOCKED
), run AS (
    INSERT INTO sync_run (
        id, user_integration_id, integration_domain, lane, trigger, start_seq, config_version,
        next_sync_at, complete)
    SELECT gen_random_uuid(), due.id, due.integration_domain, '{Lane.LIVE}',
        CASE WHEN due.resync_due THEN '{Trigger.RESYNC}' ELSE '{Trigger.SCHEDULE}' END,
        (SELECT last_value FROM dispatch_seq), due.config_version, due.next_sync_at,
        due.resync_due OR EXISTS (SELECT FROM held_deletion h
            WHERE h.user_integration_id = due.id AND h.state = '{HeldState.ACCEPTED}')
    FROM due
    ON CONFLICT (user_integration_id, lane) WHERE state = '{RunState.RUNNING}' DO NOTHING
    RETURNING id, user_integration_id, integration_domain, lane
), root AS (
    INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
        dedup_key)
    SELECT id, user_integration_id, integration_domain, lane, '{START}', {NO_PAYLOAD}, %(root)s
    FROM run
), claimed AS (
    UPDATE user_integration a SET
        resync_due = false, drop_state = false, next_sync_at = due.next_sync_at
    FROM run JOIN due ON due.id = run.user_integration_id WHERE a.id = due.id
)
SELECT run.id, run.user_integration_id, due.drop_state, due.changed
FROM run JOIN due ON due.id = run.user_integration_id
"""

TICK = "UPDATE engine_state SET last_tick_at = clock_timestamp()"

LOCK_ACCOUNT = """
SELECT sync_status, integration_domain, resync_due, drop_state
FROM user_integration WHERE id = %s FOR NO KEY UPDATE
"""
# The caller has locked the account, so the run cannot end.
OPEN_LIVE_RUN = f"""
SELECT id FROM sync_run
WHERE user_integration_id = %s AND lane = '{Lane.LIVE}' AND state = '{RunState.RUNNING}'
"""
# Only a listing confirms a deletion, and a plugin with a cursor does not list in every run.
HAS_ACCEPTED_DELETIONS = f"""
SELECT 1 FROM held_deletion
WHERE user_integration_id = %s AND state = '{HeldState.ACCEPTED}' LIMIT 1
"""
RESYNC_TAKEN = "UPDATE user_integration SET resync_due = false, drop_state = false WHERE id = %s"
REQUEST_RESYNC = """
UPDATE user_integration SET resync_due = true, drop_state = true, next_sync_at = now()
WHERE id = %s
"""

# The rows stay, so that a writer with an earlier dispatch cannot restore a cursor.
DROP_STATE = """
UPDATE sync_state SET
    value = NULL, version = version + 1, dispatch_seq = nextval('dispatch_seq'), updated_at = now()
WHERE user_integration_id = %s AND value IS NOT NULL
"""


def claim_due(conn: Conn, batch: int) -> list[tuple[UUID, UUID]]:
    """Open runs for at most `batch` due accounts.

    Concurrent schedulers or ticks open one run per account. Locks, in this order: accounts that no
    other scheduler has locked, their new runs, state, stopped tasks, backfill runs.

    Returns:
      A pair of (run, account) for each new run.
    """
    with conn.transaction():
        rows = conn.execute(CLAIM_DUE, {"batch": batch, "root": ROOT_KEY}).fetchall()
        for _, account, drop_state, _ in rows:
            if drop_state:
                conn.execute(DROP_STATE, (account,))
        claimed = [(run, account) for run, account, _, _ in rows]
        owing = carry_over.owing(conn, [account for _, account in claimed])
        for run, account, _, changed in rows:
            if account in owing:
                # The leader postpones the deferred tasks of an account that is not active. After a
                # person has changed the account, its next run tries all of them.
                carry_over.continue_tasks(conn, run, account, all_deferred=changed)
    return claimed


def poll(conn: Conn, batch: int) -> int:
    """Open runs until no account is due. Returns the number of new runs."""
    made = 0
    while claimed := claim_due(conn, batch):
        made += len(claimed)
    return made


def request_run(conn: Conn, account: UUID, *, trigger: str = Trigger.MANUAL) -> tuple[UUID, bool]:
    """Open a live run of an account now, or join its open run.

    The next probe of an account that does not answer is due immediately. Locks, in this order: the
    account, its breakers, its live run, state, stopped tasks, its backfill run.

    Args:
      conn: A connection in autocommit mode.
      account: The account.
      trigger: The trigger of a new run. Default: `manual`, which becomes `resync` if a resync is
        due.

    Returns:
      The id of the run, and True if it is new.

    Raises:
      NotFound: The account does not exist.
      WrongState: The account is not active.
    """
    with conn.transaction():
        domain, resync_due, drop_state = _lock_active(conn, account)
        breakers.probe_now(conn, account)
        joined = conn.execute(OPEN_LIVE_RUN, (account,)).fetchone()
        if joined is not None:
            return joined[0], False
        if trigger == Trigger.MANUAL and resync_due:
            trigger = Trigger.RESYNC
        complete = trigger == Trigger.RESYNC or _has_accepted(conn, account)
        params: dict[str, Any] = {"account": account, "lane": Lane.LIVE, "complete": complete}
        params |= {"id": uuid4(), "domain": domain, "trigger": trigger, "root": ROOT_KEY}
        _open_with_root(conn, params)
        if drop_state:
            conn.execute(DROP_STATE, (account,))
        conn.execute(RESYNC_TAKEN, (account,))
        carry_over.continue_tasks(conn, params["id"], account, all_deferred=True)
    return params["id"], True


def _has_accepted(conn: Conn, account: UUID) -> bool:
    """Return True if the next run confirms deletions of the account. Locks nothing."""
    return conn.execute(HAS_ACCEPTED_DELETIONS, (account,)).fetchone() is not None


def _open_with_root(conn: Conn, params: Mapping[str, Any]) -> None:
    """Insert a run and its root task. The caller has locked the account, so no other run opens."""
    conn.execute(OPEN_RUN, params)
    conn.execute(ADD_ROOT, params)


def request_resync(conn: Conn, account: UUID) -> tuple[UUID, bool]:
    """Delete all cursors of an account, and open a run that lists everything again.

    If a run is open, the resync starts after its end.

    Returns:
      The id of the new or open run, and True if it is new.

    Raises:
      NotFound: The account does not exist.
      WrongState: The account is not active.
    """
    with conn.transaction():
        _lock_active(conn, account)
        conn.execute(REQUEST_RESYNC, (account,))
    return request_run(conn, account, trigger=Trigger.RESYNC)


def _lock_active(conn: Conn, account: UUID) -> tuple[str, bool, bool]:
    """Lock an account.

    Returns:
      Its domain, True if a resync is due, and True if the next run drops its cursors.
    """
    row = conn.execute(LOCK_ACCOUNT, (account,)).fetchone()
    if row is None:
        raise NotFound("account-not-found", account=account)
    if row[0] != AccountState.ACTIVE:
        raise not_active(row[0], account)
    return row[1], row[2], row[3]
