"""Opening runs, on schedule and on request. Plugin code never runs here."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from core.db.clocks import TOMORROW
from core.db.pool import Conn
from core.db.row_factory import dataclass_row
from core.errors import NotFound
from core.integration.base import START
from core.ledger import breakers, carry_over, quotas
from core.ledger.endings import ENDING
from core.ledger.opening import ADD_ROOT, NO_PAYLOAD, OPEN_RUN, ROOT_KEY, not_active
from core.ledger.pauses import PAUSED_DOMAINS
from core.states import AccountState, HeldState, Lane, Quota, RunState, Trigger

# `user_integration_due` serves it: `now()` can be a condition on an index, and `clock_timestamp()`
# cannot. The planner takes the last condition for true in this form. In the form `<> ALL (…)`, it
# takes it for false if there are few domains (ADR 0095).
_DUE = f"""
FROM user_integration a
WHERE a.sync_status = '{AccountState.ACTIVE}' AND a.next_sync_at <= now()
  AND NOT ARRAY({PAUSED_DOMAINS}) @> ARRAY[a.integration_domain]
  AND NOT ARRAY({ENDING}) @> ARRAY[a.organization_id]
"""
ANY_DUE = f"SELECT EXISTS (SELECT {_DUE})"

# The intervals between a claim and the next poll. The end of a short run finds the next poll where
# it has to be, and leaves it (see `core.ledger.completion.RESCHEDULE`).
AHEAD = "(0.97 + 0.08 * random())"

# Claims due accounts, and inserts their runs and root tasks, in one statement. It skips accounts
# of paused integrations, and accounts that another scheduler has locked. The unique index on open
# runs decides whether an account gets a run. If one is open, the account joins it. The statement
# takes both out of `user_integration_due`, which serves it, so that no later claim reads past them.
# A joined run notes if another poll has to follow it. This is so if it was not a poll itself, or if
# the next poll was set in the meantime.
# It does not look for open runs itself: with bad statistics, the planner would compare each due
# account with each open run (ADR 0067).
CLAIM_DUE = f"""
WITH due AS (
    SELECT a.id, a.integration_domain, a.resync_due, a.drop_state, a.config_version,
        a.updated_at > coalesce(a.last_sync_at, '-infinity') AS changed,
        clock_timestamp() + a.poll_interval_minutes * interval '1 minute' * {AHEAD} AS next_sync_at
    {_DUE} AND (%(only)s::uuid[] IS NULL OR a.id = ANY (%(only)s))
    ORDER BY a.next_sync_at LIMIT %(batch)s FOR NO KEY UPDATE OF a SKIP LOCKED
), run AS (
    INSERT INTO sync_run AS r (
        id, user_integration_id, integration_domain, lane, trigger, start_seq, config_version,
        next_sync_at, complete)
    SELECT gen_random_uuid(), due.id, due.integration_domain, '{Lane.LIVE}',
        CASE WHEN due.resync_due THEN '{Trigger.RESYNC}' ELSE '{Trigger.SCHEDULE}' END,
        (SELECT last_value FROM dispatch_seq), due.config_version, due.next_sync_at,
        due.resync_due OR EXISTS (SELECT FROM held_deletion h
            WHERE h.user_integration_id = due.id AND h.state = '{HeldState.ACCEPTED}')
    FROM due
    ON CONFLICT (user_integration_id, lane) WHERE state = '{RunState.RUNNING}' DO UPDATE SET
        poll_due = r.poll_due OR r.trigger IN ('{Trigger.RETRY}', '{Trigger.HINT}')
            OR coalesce(r.next_sync_at <> (SELECT a.next_sync_at FROM user_integration a
                WHERE a.id = r.user_integration_id), false),
        next_sync_at = EXCLUDED.next_sync_at
    RETURNING r.id, r.user_integration_id, r.integration_domain, r.lane, r.xmax = 0 AS is_new
), root AS (
    INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
        dedup_key)
    SELECT id, user_integration_id, integration_domain, lane, '{START}', {NO_PAYLOAD}, %(root)s
    FROM run WHERE is_new
), handled AS (
    UPDATE user_integration a SET
        resync_due = a.resync_due AND NOT run.is_new,
        drop_state = a.drop_state AND NOT run.is_new,
        next_sync_at = due.next_sync_at
    FROM due JOIN run ON run.user_integration_id = due.id WHERE a.id = due.id
)
SELECT run.id AS run, due.id AS account, run.is_new, due.drop_state, due.changed
FROM due JOIN run ON run.user_integration_id = due.id
"""
# Locks due accounts like `CLAIM_DUE`.
LOCK_DUE = f"""
SELECT a.id, a.user_id {_DUE}
ORDER BY a.next_sync_at LIMIT %s FOR NO KEY UPDATE OF a SKIP LOCKED
"""
# The locked accounts that join their open run, which cannot end while they are locked. Each is one
# search of `sync_run_open`.
JOINING = f"""
SELECT a.id FROM unnest(%s::uuid[]) AS a (id) CROSS JOIN LATERAL (
    SELECT FROM sync_run r WHERE r.user_integration_id = a.id AND r.lane = '{Lane.LIVE}'
        AND r.state = '{RunState.RUNNING}' LIMIT 1) run
"""
# The day's runs of the user have all begun. The accounts ask again after their interval, or early
# on the next day, spread over their interval.
WAIT_FOR_QUOTA = f"""
UPDATE user_integration SET next_sync_at = least(
    {TOMORROW} + random() * poll_interval_minutes * interval '1 minute',
    clock_timestamp() + poll_interval_minutes * interval '1 minute')
WHERE id = ANY(%s)
"""

# Claims read the first entries of the index of due accounts. If the planner expected few due
# accounts, it would otherwise read and sort all of them.
NO_BITMAP_SCANS = "SET LOCAL enable_bitmapscan = off"

TICK = "UPDATE engine_state SET last_tick_at = clock_timestamp()"

LOCK_ACCOUNT = f"""
SELECT CASE WHEN organization_id IN ({ENDING}) THEN '{AccountState.DISCONNECTED}'
    ELSE sync_status END, integration_domain, resync_due, drop_state, user_id
FROM user_integration WHERE id = %s FOR NO KEY UPDATE
"""
# The caller has locked the account, so the run cannot end. A run that somebody joined is kept.
OPEN_LIVE_RUN = f"""
SELECT id, joined FROM sync_run
WHERE user_integration_id = %s AND lane = '{Lane.LIVE}' AND state = '{RunState.RUNNING}'
"""
JOIN_RUN = "UPDATE sync_run SET joined = true WHERE id = %s"
# Only a listing confirms a deletion, and a plugin with a cursor does not list in every run.
HAS_ACCEPTED_DELETIONS = f"""
SELECT 1 FROM held_deletion
WHERE user_integration_id = %s AND state = '{HeldState.ACCEPTED}' LIMIT 1
"""
# The run takes over a resync and a poll that are due.
RUN_REQUESTED = """
UPDATE user_integration SET resync_due = false, drop_state = false,
    next_sync_at = CASE WHEN next_sync_at > clock_timestamp() THEN next_sync_at
        ELSE clock_timestamp() + poll_interval_minutes * interval '1 minute' END
WHERE id = %s
"""
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


@dataclass(frozen=True, slots=True)
class Claim:
    """The accounts that one claim has handled.

    Attributes:
      runs: A pair of (run, account) for each new run.
      joined: The number of accounts that joined their open run.
      waiting: The number of accounts whose user has no run left on this day.
    """

    runs: list[tuple[UUID, UUID]]
    joined: int
    waiting: int = 0

    @property
    def handled(self) -> int:
        """The number of accounts that were due. Fewer than the batch: no other one was due."""
        return len(self.runs) + self.joined + self.waiting


def claim_due(conn: Conn, batch: int) -> Claim:
    """Open runs for at most `batch` due accounts.

    Concurrent schedulers or ticks open one run per account. Locks, in this order: accounts that no
    other scheduler has locked, the runs of their users, their new runs, state, stopped tasks,
    backfill runs.
    """
    with conn.transaction():
        conn.execute(NO_BITMAP_SCANS)
        due = _lock_due(conn, batch) if quotas.any_of(conn, Quota.RUNS) else None
        params = {"batch": batch, "root": ROOT_KEY, "only": due.allowed if due else None}
        cursor = conn.cursor(row_factory=dataclass_row(_DueRun))
        found = cursor.execute(CLAIM_DUE, params).fetchall()
        new = [each for each in found if each.is_new]
        accounts = [each.account for each in new]
        if due is not None:
            due.count(conn, accounts)
        for each in new:
            if each.drop_state:
                conn.execute(DROP_STATE, (each.account,))
        owing = carry_over.owing(conn, accounts) if new else set()
        for each in new:
            if each.account in owing:
                # The leader postpones the deferred tasks of an account that is not active. After a
                # person has changed the account, its next run tries all of them.
                carry_over.continue_tasks(conn, each.run, each.account, all_deferred=each.changed)
    runs = [(each.run, each.account) for each in new]
    return Claim(runs, len(found) - len(new), len(due.refused) if due else 0)


@dataclass(frozen=True, slots=True)
class _DueRun:
    """A due account, and the run that it begins or joins.

    Attributes:
      is_new: True if the run begins.
      drop_state: True if the run drops all cursors.
      changed: True if a person has changed the account since its latest run.
    """

    run: UUID
    account: UUID
    is_new: bool
    drop_state: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class _DueAccounts:
    """Due accounts, locked: those that may begin a run, and those whose user has none left.

    Attributes:
      users: The user of each account.
      locked: The runs of these users, locked.
      allowed: The accounts that may begin a run, and those that join their open one.
      refused: The accounts whose user has no run left on this day.
    """

    users: Mapping[UUID, str]
    locked: Mapping[str, quotas.Runs]
    allowed: list[UUID] = field(default_factory=list)
    refused: list[UUID] = field(default_factory=list)

    def count(self, conn: Conn, begun: Sequence[UUID]) -> None:
        """Count the runs that begin."""
        quotas.count_runs(conn, self.locked, Counter(self.users[account] for account in begun))


def _lock_due(conn: Conn, batch: int) -> _DueAccounts:
    """Lock at most `batch` due accounts; postpone those whose user has no run left."""
    users: dict[UUID, str] = dict(conn.execute(LOCK_DUE, (batch,)).fetchall())
    due = _DueAccounts(users, quotas.lock_runs(conn, users.values()))
    left = {user: runs.left for user, runs in due.locked.items()}
    joining = {id for (id,) in conn.execute(JOINING, (list(users),))} if left else set()
    for account, user in users.items():
        if account in joining:
            due.allowed.append(account)
        elif left.get(user, 1) > 0:
            due.allowed.append(account)
            left[user] = left.get(user, 1) - (user in left)
        else:
            due.refused.append(account)
    conn.execute(WAIT_FOR_QUOTA, (due.refused,))
    return due


def any_due(conn: Conn) -> bool:
    """Return True if an account is due. Locks nothing."""
    row = conn.execute(ANY_DUE).fetchone()
    return row is not None and bool(row[0])


def poll(conn: Conn, batch: int) -> int:
    """Open runs until no account is due. Returns the number of new runs."""
    return poll_for(conn, batch, math.inf)[0]


def poll_for(conn: Conn, batch: int, seconds: float) -> tuple[int, bool]:
    """Open runs until no account is due, or until the time has passed.

    Args:
      conn: A connection in autocommit mode.
      batch: The number of accounts that one transaction claims.
      seconds: The time after which no further claim begins. The first one always does.

    Returns:
      The number of new runs, and True if more accounts may be due.
    """
    deadline, made = time.monotonic() + seconds, 0
    while True:
        claim = claim_due(conn, batch)
        made += len(claim.runs)
        if claim.handled < batch:
            return made, False
        if time.monotonic() >= deadline:
            return made, True


def request_run(conn: Conn, account: UUID, *, trigger: str = Trigger.MANUAL) -> tuple[UUID, bool]:
    """Open a live run of an account now, or join its open run.

    The next probe of an account that does not answer is due immediately. Locks, in this order: the
    account, its breakers, the runs of its user, its live run, state, stopped tasks, its backfill
    run.

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
      QuotaReached: The user of the account has no run left on this day, or too much content.
    """
    with conn.transaction():
        domain, resync_due, drop_state, user = _lock_active(conn, account)
        breakers.probe_now(conn, account)
        joined = conn.execute(OPEN_LIVE_RUN, (account,)).fetchone()
        if joined is not None:
            if not joined[1]:
                conn.execute(JOIN_RUN, joined[:1])
            return joined[0], False
        quotas.take_runs(conn, {user: 1})
        if trigger == Trigger.MANUAL and resync_due:
            trigger = Trigger.RESYNC
        complete = trigger == Trigger.RESYNC or _has_accepted(conn, account)
        params: dict[str, Any] = {"account": account, "lane": Lane.LIVE, "complete": complete}
        params |= {"id": uuid4(), "domain": domain, "trigger": trigger, "root": ROOT_KEY}
        conn.execute(RUN_REQUESTED, (account,))
        _open_with_root(conn, params)
        if drop_state:
            conn.execute(DROP_STATE, (account,))
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
      WrongState, QuotaReached: As for `request_run`; then no resync is due.
    """
    with conn.transaction():
        _lock_active(conn, account)
        conn.execute(REQUEST_RESYNC, (account,))
        return request_run(conn, account, trigger=Trigger.RESYNC)


def _lock_active(conn: Conn, account: UUID) -> tuple[str, bool, bool, str]:
    """Lock an account.

    Returns:
      Its domain, True if a resync is due, True if the next run drops its cursors, and its user.
    """
    row = conn.execute(LOCK_ACCOUNT, (account,)).fetchone()
    if row is None:
        raise NotFound("account-not-found", account=account)
    if row[0] != AccountState.ACTIVE:
        raise not_active(row[0], account)
    return row[1], row[2], row[3], row[4]
