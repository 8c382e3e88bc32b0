"""Breakers: accounts, and single limits of accounts, whose latest calls failed in a row.

A breaker opens after `OPENS_AFTER` failures that may pass, without a success between them. While it
is open, its tasks wait, and one probe runs after each pause. A success closes it: the row is
deleted. A breaker never affects another account.

The probe of an account is a dispatch with `probe`: the worker calls the plugin's `probe()` before
it runs the task. The probe of a limit is a task that uses the limit.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from core.backoff import Draw
from core.content.portions import SWEEP
from core.db.clocks import beyond, passed
from core.db.indexed import IS_STOPPED
from core.db.pool import Conn
from core.db.row_factory import dataclass_row
from core.integration.base import REREAD, START
from core.ledger.outcomes import Outcome
from core.ledger.pauses import PAUSED_DOMAINS
from core.limits.keys import WHOLE_ACCOUNT
from core.results.text import json_text
from core.states import Lane, RunState, TaskState, literals

OPENS_AFTER = 5
"""The number of failures in a row that open a breaker."""

FIRST_PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 900.0
"""The first and the longest pause between two probes."""

MAX_FAILED_TASKS = 1_000
"""The number of failures whose tasks a breaker records, to take their attempts back."""

MAX_DEFERRED = 1_000
"""The number of tasks that one statement defers."""

MIN_POSTPONEMENT_SECONDS = 60
"""The shortest time for which a deferred task is postponed because a breaker is open."""

PROBE_DUE = f"""({passed("breaker.probe_at", "b.probe_at")} AND NOT EXISTS (
    SELECT FROM sync_task p WHERE p.id = b.probe_task AND p.state = '{TaskState.QUEUED}'))"""
"""The condition that an open breaker `b` has waited for its pause and has no probe in flight."""

# Locks the breakers of some accounts in the order of all locks. Served by the primary key.
LOCK_BREAKERS = """
SELECT FROM breaker WHERE user_integration_id = ANY(%s::uuid[]) ORDER BY user_integration_id,
    limit_name FOR UPDATE
"""

# A success closes the breakers of its account and of the limits that its task uses.
CLOSE_BREAKERS = f"""
WITH answered AS MATERIALIZED (
    SELECT b.user_integration_id AS account, b.limit_name FROM breaker b
    JOIN unnest(%s::uuid[], %s::text[]) AS done(account, type)
        ON done.account = b.user_integration_id
    WHERE b.limit_name = '{WHOLE_ACCOUNT}' OR done.type = ANY (b.types)
    ORDER BY 1, 2 FOR UPDATE OF b
)
DELETE FROM breaker b USING answered
WHERE b.user_integration_id = answered.account AND b.limit_name = answered.limit_name
RETURNING b.opened_at IS NOT NULL
"""
CLOSE_ACCOUNT = f"""
DELETE FROM breaker WHERE user_integration_id = %s AND limit_name = '{WHOLE_ACCOUNT}'
"""

PROBE_DIED = "the process of its probe died or hung"
"""The reason of a breaker whose latest probe returned nothing."""

_PAUSE = f"""%(jitter)s * interval '1 second'
    * least({MAX_PAUSE_SECONDS}, {FIRST_PAUSE_SECONDS} * 2.0 ^ least(b.failed_probes + 1, 20))"""
_OPENS = f"b.failures + excluded.failures >= {OPENS_AFTER}"
_PROBED = """(b.opened_at IS NOT NULL
    AND coalesce(b.probe_task = ANY (excluded.failed_tasks), false))"""

# Counts failures. The pause of a failed probe grows; a provider that asks for a longer one gets it.
RECORD_FAILURES = f"""
INSERT INTO breaker AS b (user_integration_id, limit_name, integration_domain, types, failures,
    failed_tasks, reason, first_failed_at, opened_at, paused_at, probe_at)
SELECT f.account, f.limit_name, f.domain, f.types, cardinality(f.tasks), f.tasks, f.reason,
    clock_timestamp(),
    CASE WHEN cardinality(f.tasks) >= {OPENS_AFTER} THEN clock_timestamp() END,
    clock_timestamp(), clock_timestamp()
        + greatest(f.requested, {FIRST_PAUSE_SECONDS} * %(jitter)s) * interval '1 second'
FROM json_to_recordset(%(failures)s::json) AS f(account uuid, limit_name text, domain text,
    types text[], tasks bigint[], reason text, requested float)
ORDER BY f.account, f.limit_name
ON CONFLICT (user_integration_id, limit_name) DO UPDATE SET
    failures = b.failures + excluded.failures,
    failed_tasks = (b.failed_tasks || excluded.failed_tasks)[:{MAX_FAILED_TASKS}],
    types = excluded.types, reason = excluded.reason,
    opened_at = coalesce(b.opened_at, CASE WHEN {_OPENS} THEN clock_timestamp() END),
    failed_probes = b.failed_probes + ({_PROBED})::int,
    probe_at = CASE WHEN b.opened_at IS NULL THEN excluded.probe_at
        WHEN {_PROBED} THEN greatest(excluded.probe_at, clock_timestamp() + {_PAUSE})
        ELSE b.probe_at END,
    paused_at = CASE WHEN b.opened_at IS NULL OR {_PROBED} THEN clock_timestamp()
        ELSE b.paused_at END,
    probe_task = CASE WHEN {_PROBED} THEN NULL ELSE b.probe_task END
RETURNING b.user_integration_id::text, b.limit_name, b.opened_at IS NOT NULL
"""

# The account does not answer. A task that is no longer the probe says nothing: the breaker counted
# its failure already, or has another probe.
RECORD_FAILED_PROBE = f"""
UPDATE breaker b SET failed_probes = b.failed_probes + 1, probe_task = NULL, reason = %(reason)s,
    paused_at = clock_timestamp(),
    probe_at = clock_timestamp() + greatest(%(requested)s * interval '1 second', {_PAUSE})
WHERE b.user_integration_id = %(account)s AND b.limit_name = '{WHOLE_ACCOUNT}'
  AND b.opened_at IS NOT NULL AND b.probe_task = %(task)s
"""

# Probes of accounts whose lease has expired, as common table expressions behind `expired(id)`. A
# probe that has returned has no breaker any more. `breaker_open` has the open breakers alone.
EXPIRED_PROBES = f"""
probes AS MATERIALIZED (
    SELECT b.user_integration_id, b.probe_task FROM breaker b
    WHERE b.limit_name = '{WHOLE_ACCOUNT}' AND b.opened_at IS NOT NULL
      AND b.probe_task IN (SELECT id FROM expired)
    ORDER BY 1 FOR UPDATE
), died AS (
    UPDATE breaker b SET failed_probes = b.failed_probes + 1, probe_task = NULL,
        reason = '{PROBE_DIED}', paused_at = clock_timestamp(),
        probe_at = clock_timestamp() + {_PAUSE}
    FROM probes p
    WHERE b.user_integration_id = p.user_integration_id AND b.limit_name = '{WHOLE_ACCOUNT}'
)"""

# The failures of an account that does not answer count no attempts. Tasks that another transaction
# has locked stay in `failed_tasks` until the next failure.
TAKE_BACK_ATTEMPTS = f"""
WITH counted AS MATERIALIZED (
    SELECT failed AS id, count(*)::int AS failures FROM breaker b, unnest(b.failed_tasks) AS failed
    WHERE b.user_integration_id = ANY(%(accounts)s::uuid[]) AND b.limit_name = '{WHOLE_ACCOUNT}'
      AND b.failed_probes > 0
    GROUP BY 1
), free AS MATERIALIZED (
    SELECT t.id FROM sync_task t WHERE t.id = ANY (ARRAY(SELECT id FROM counted))
    ORDER BY t.id FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE sync_task t SET attempts = greatest(t.attempts - c.failures, 0),
        first_failed_at = CASE WHEN t.attempts > c.failures OR t.deferrals > 0
            THEN t.first_failed_at END
    FROM counted c JOIN free USING (id)
    WHERE t.id = c.id AND t.state IN ({literals((TaskState.READY, TaskState.QUEUED))})
)
UPDATE breaker b SET failed_tasks = ARRAY(
    SELECT failed FROM unnest(b.failed_tasks) AS failed WHERE failed NOT IN (SELECT id FROM free))
WHERE b.user_integration_id = ANY(%(accounts)s::uuid[]) AND b.limit_name = '{WHOLE_ACCOUNT}'
  AND b.failed_probes > 0
"""

# A provider that asks the probe to wait gets no further call before. Otherwise, the next task would
# become the probe immediately.
POSTPONE_PROBE = f"""
UPDATE breaker SET probe_at = greatest(
    CASE WHEN NOT {beyond("breaker.probe_at")} THEN probe_at END,
    clock_timestamp() + %s * interval '1 second'), paused_at = clock_timestamp()
WHERE user_integration_id = %s AND probe_task = %s AND opened_at IS NOT NULL
"""

PROBE_NOW = """
UPDATE breaker SET probe_at = clock_timestamp()
WHERE user_integration_id = %s AND opened_at IS NOT NULL
"""

# Breakers of limits that no task will probe: its type was removed or renamed, or a person discarded
# its tasks. `sync_task_ready`, `sync_task_queued` and `sync_task_owed` serve the conditions.
PRUNE_LIMITS = f"""
DELETE FROM breaker b WHERE b.limit_name <> '{WHOLE_ACCOUNT}'
  AND b.probe_at < least(clock_timestamp() - %s * interval '1 second', %s)
  AND NOT EXISTS (SELECT FROM sync_task t WHERE t.state = '{TaskState.READY}'
    AND t.integration_domain = b.integration_domain
    AND t.user_integration_id = b.user_integration_id AND t.type = ANY (b.types))
  AND NOT EXISTS (SELECT FROM sync_task t WHERE t.state = '{TaskState.QUEUED}'
    AND t.integration_domain = b.integration_domain
    AND t.user_integration_id = b.user_integration_id AND t.type = ANY (b.types))
  AND NOT EXISTS (SELECT FROM sync_task t WHERE {IS_STOPPED} AND t.state = '{TaskState.DEFERRED}'
    AND t.user_integration_id = b.user_integration_id AND t.type = ANY (b.types))
"""

# Live runs that have waited for a limit for one poll interval, while their account answers. Served
# by `sync_run_open`; `breaker` has few rows.
OVERDUE_LIMITS = f"""
WITH open AS MATERIALIZED (
    SELECT b.* FROM breaker b
    WHERE b.opened_at IS NOT NULL AND b.limit_name <> '{WHOLE_ACCOUNT}'
      AND b.integration_domain <> ALL (ARRAY({PAUSED_DOMAINS}))
      AND NOT EXISTS (SELECT FROM breaker whole
        WHERE whole.user_integration_id = b.user_integration_id
          AND whole.limit_name = '{WHOLE_ACCOUNT}' AND whole.opened_at IS NOT NULL)
)
SELECT b.user_integration_id AS account, b.limit_name, b.types, r.id AS run
FROM open b CROSS JOIN LATERAL (
    SELECT poll_interval_minutes * interval '1 minute' AS interval FROM user_integration
    WHERE id = b.user_integration_id OFFSET 0
) a CROSS JOIN LATERAL (
    SELECT id, started_at FROM sync_run WHERE user_integration_id = b.user_integration_id
      AND integration_domain = b.integration_domain AND lane = '{Lane.LIVE}'
      AND state = '{RunState.RUNNING}' OFFSET 0
) r
WHERE greatest(b.opened_at, r.started_at) + a.interval <= clock_timestamp()
ORDER BY 1, 2 LIMIT 100
"""
# Served by `sync_task_ready`.
DEFER_WAITING = f"""
WITH waiting AS MATERIALIZED (
    SELECT t.id FROM sync_task t JOIN sync_run r ON r.id = t.run_id
    WHERE t.state = '{TaskState.READY}' AND t.integration_domain = r.integration_domain
      AND t.user_integration_id = r.user_integration_id AND t.lane = r.lane AND r.id = %(run)s
      AND t.run_id = r.id AND t.type = ANY (%(types)s)
    ORDER BY t.id LIMIT {MAX_DEFERRED} FOR UPDATE OF t SKIP LOCKED
)
UPDATE sync_task t SET state = '{TaskState.DEFERRED}', finished_at = clock_timestamp(),
    available_at = clock_timestamp() + {MIN_POSTPONEMENT_SECONDS} * interval '1 second',
    reason = %(reason)s
FROM waiting WHERE t.id = waiting.id
"""


@dataclass(slots=True)
class _Failures:
    """The failures of one batch on one account or limit, as `RECORD_FAILURES` reads them."""

    account: str
    limit_name: str
    domain: str
    types: list[str] | None
    reason: str
    requested: float = 0.0
    tasks: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OverdueLimit:
    """A live run that has waited for a limit for one poll interval."""

    account: UUID
    limit_name: str
    types: list[str]
    run: UUID


def record(
    conn: Conn,
    outcomes: Sequence[Outcome],
    watched: Collection[str],
    draw: Draw = random.uniform,
) -> bool:
    """Count the failures and the successes of a batch: the breakers open, stay open, or close.

    Tasks of an account whose breaker is open stay in their run: this function changes their
    outcomes. Locks breakers by account and limit, after the tasks.

    Args:
      conn: A connection in the saving transaction.
      outcomes: The outcomes that passed the fence.
      watched: The accounts that have breakers.
      draw: Makes the jitter of the pauses. Default: `random.uniform`.

    Returns:
      True if an open breaker closed, so that tasks are ready.
    """
    if watched:
        conn.execute(LOCK_BREAKERS, (sorted(watched),))
    closed = _close(conn, outcomes, watched)
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    params: dict[str, Any] = {"jitter": draw(0.5, 1)}
    if failed:
        rows = json_text([asdict(each) for each in _counted(failed)])
        recorded = conn.execute(RECORD_FAILURES, {**params, "failures": rows}).fetchall()
        open_accounts = {
            account for account, limit, is_open in recorded if limit == WHOLE_ACCOUNT and is_open
        }
        for outcome in failed:
            if outcome.dispatch.account_id in open_accounts:
                _stay_in_run(outcome)
    for outcome in outcomes:
        if outcome.failed_probe is not None:
            dispatch = outcome.dispatch
            params |= {"account": dispatch.account_id, "task": dispatch.task_id}
            params |= {"reason": outcome.reason, "requested": outcome.failed_probe}
            conn.execute(RECORD_FAILED_PROBE, params)
        elif outcome.snooze and outcome.dispatch.account_id in watched:
            dispatch = outcome.dispatch
            conn.execute(POSTPONE_PROBE, (outcome.delay, dispatch.account_id, dispatch.task_id))
    return closed


def _close(conn: Conn, outcomes: Sequence[Outcome], watched: Collection[str]) -> bool:
    """Close the breakers of accounts that answered. Some tasks call no provider."""
    answered = {
        (outcome.dispatch.account_id, outcome.dispatch.type)
        for outcome in outcomes
        if outcome.dispatch.account_id in watched
        and outcome.state == TaskState.DONE
        and outcome.dispatch.type not in (START, SWEEP, REREAD)
    }
    if not answered:
        return False
    accounts, types = zip(*sorted(answered), strict=True)
    return any(
        was_open for (was_open,) in conn.execute(CLOSE_BREAKERS, (list(accounts), list(types)))
    )


def _counted(outcomes: Iterable[Outcome]) -> list[_Failures]:
    """Return the failures by account and limit. A failure of a limit also counts on its account."""
    counted: dict[tuple[str, str], _Failures] = {}
    for outcome in outcomes:
        failure, dispatch = outcome.failure, outcome.dispatch
        assert failure is not None
        limits = {WHOLE_ACCOUNT: None} | ({failure.limit: failure.types} if failure.limit else {})
        for limit, types in limits.items():
            each = counted.setdefault(
                (dispatch.account_id, limit),
                _Failures(dispatch.account_id, limit, dispatch.domain, types, failure.reason),
            )
            each.tasks.append(dispatch.task_id)
            each.requested = max(each.requested, failure.requested)
    return list(counted.values())


def _stay_in_run(outcome: Outcome) -> None:
    """Keep a task in its run, because its account's breaker is open."""
    assert outcome.failure is not None
    if outcome.state != TaskState.READY:
        outcome.state, outcome.delay, outcome.reason = TaskState.READY, 0.0, outcome.failure.reason


def take_back_attempts(conn: Conn, accounts: Collection[str]) -> None:
    """Take back the attempts of failures on those of these accounts that do not answer.

    Call this after the attempts are counted.
    """
    if accounts:
        conn.execute(TAKE_BACK_ATTEMPTS, {"accounts": sorted(accounts)})


def failed_accounts(outcomes: Iterable[Outcome]) -> set[str]:
    """Return the accounts of failures that may pass, and of failed probes."""
    return {
        outcome.dispatch.account_id
        for outcome in outcomes
        if outcome.failure is not None or outcome.failed_probe is not None
    }


def close_account(conn: Conn, account: UUID | str) -> None:
    """Close the breaker of an account that has answered."""
    conn.execute(CLOSE_ACCOUNT, (account,))


def probe_now(conn: Conn, account: UUID) -> None:
    """Make the next probes of an account due: a person changed it, or requested a run."""
    conn.execute(PROBE_NOW, (account,))


def overdue_limits(conn: Conn) -> list[OverdueLimit]:
    """Return the live runs that have waited for an open limit for one poll interval."""
    cursor = conn.cursor(row_factory=dataclass_row(OverdueLimit))
    return cursor.execute(OVERDUE_LIMITS).fetchall()


def defer_waiting(conn: Conn, overdue: OverdueLimit) -> int:
    """Defer tasks that wait for a limit, so that the account can be polled again.

    Returns:
      The number of deferred tasks: at most `MAX_DEFERRED`.
    """
    reason = f"deferred: {overdue.limit_name} does not answer"
    params = {"run": overdue.run, "types": overdue.types, "reason": reason}
    return conn.execute(DEFER_WAITING, params).rowcount
