"""The blockers of an account or a run, each with its cause, its end and the next step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from core.accounts.store import Account
from core.content.visible import ACCOUNT_IS_VISIBLE
from core.db.clocks import TODAY, TOMORROW, lasts
from core.db.pool import Conn
from core.db.row_factory import dataclass_row
from core.db.rows import fetch
from core.dispatcher.schedule import is_frequent, missed_tick, next_tick
from core.errors import Advice, WrongState
from core.ledger import leadership, processes
from core.ledger.leadership import Status
from core.ledger.pauses import Pause
from core.ledger.processes import ALIVE
from core.ledger.quotas import most
from core.limits.keys import WHOLE_ACCOUNT
from core.service.accounts.actions import stopped
from core.service.backend import Backend
from core.service.fleet import limits, pauses
from core.service.formatting import counted, moment, size
from core.service.runs.progress import Progress
from core.settings import Settings
from core.states import (
    AccountState,
    AccountStateReason,
    HeldState,
    Lane,
    Quota,
    RunState,
    TaskState,
    WaitCause,
)
from core.worker.reserve import reserved

LATE_TICK = timedelta(minutes=1)
"""The time after which a tick that did not come counts as missed."""

MAX_COUNTED = 10_000
"""The number of tasks, or of open runs, that a sentence counts."""

# `sync_run_open`, the index of held deletions by account and `sync_task_ready` serve it.
FACTS = f"""
SELECT a.id, a.next_sync_at, a.resync_due,
    (SELECT r.id FROM sync_run r WHERE r.user_integration_id = a.id
        AND r.lane = '{Lane.LIVE}' AND r.state = '{RunState.RUNNING}') AS live,
    (SELECT r.id FROM sync_run r WHERE r.user_integration_id = a.id
        AND r.lane = '{Lane.BACKFILL}' AND r.state = '{RunState.RUNNING}') AS backfill,
    (SELECT coalesce(sum(h.vanished), 0)::bigint FROM held_deletion h
        WHERE h.user_integration_id = a.id AND h.state = '{HeldState.HELD}') AS held
FROM user_integration a WHERE a.id = ANY(%(accounts)s) AND {ACCOUNT_IS_VISIBLE}
"""

WHY_LATER = f"""
SELECT reason FROM sync_task
WHERE run_id = %(run)s AND state = '{TaskState.READY}' AND reason IS NOT NULL
ORDER BY available_at LIMIT 1
"""
# The table has one row for each limit that is used up now.
BLOCKS_OF_KEYS = f"""
SELECT key, until, reason FROM limit_block
WHERE {lasts("limit_block.until")} AND key ^@ ANY(%(prefixes)s) ORDER BY until DESC
"""

# The accounts whose tasks were dispatched before the first one of a run, with the most first. It
# reads as many rows as the windows are wide. Served by `sync_task_queued`.
DISPATCHED = f"""
SELECT a.id, a.user_id, a.name, count(*)::int AS tasks
FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id
WHERE t.state = '{TaskState.QUEUED}' AND t.integration_domain = ANY(%(domains)s)
  AND t.dispatch_seq < coalesce((SELECT min(mine.dispatch_seq) FROM sync_task mine
      WHERE mine.state = '{TaskState.QUEUED}' AND mine.integration_domain = %(domain)s
        AND mine.user_integration_id = %(account)s AND mine.run_id = %(run)s), {2**63 - 1})
GROUP BY a.id ORDER BY count(*) DESC, a.id
"""

# The other accounts with open runs that count in the same budget. `sync_run_by_domain` serves it.
SHARING = f"""
SELECT count(DISTINCT o.id)::int AS accounts FROM (
    SELECT a.id, a.limit_group FROM sync_run r
    JOIN user_integration a ON a.id = r.user_integration_id
    WHERE r.state = '{RunState.RUNNING}' AND r.integration_domain = %(domain)s
    ORDER BY r.user_integration_id LIMIT {MAX_COUNTED}
) o WHERE o.id <> %(account)s AND (%(group)s::text IS NULL OR o.limit_group = %(group)s)
"""

# The use of the quotas for which accounts wait. The primary keys serve it.
REACHED = f"""
SELECT u.id AS user_id, k.bytes, coalesce(k.is_full, false) AS is_full,
    {most(Quota.BYTES, "u.id")} AS most_bytes, {most(Quota.RUNS, "u.id")} AS most_runs,
    coalesce((SELECT d.runs FROM user_day d WHERE d.user_id = u.id AND d.day = {TODAY}), 0) AS runs,
    {TOMORROW} AS tomorrow
FROM unnest(%(users)s::text[]) AS u (id) LEFT JOIN user_kept k ON k.user_id = u.id
"""

# Served by the primary key. The breaker of the complete account comes first.
BREAKERS_OF_ACCOUNTS = """
SELECT user_integration_id, limit_name, reason, first_failed_at, probe_at FROM breaker
WHERE opened_at IS NOT NULL AND user_integration_id = ANY(%(accounts)s) ORDER BY limit_name
"""

# The leader records each few seconds whether it reaches Redis.
REDIS_AWAY = f"""
SELECT EXISTS (SELECT FROM process JOIN engine_state ON leader = process.id
    WHERE kind = 'dispatcher' AND {ALIVE} AND can_send_at IS NULL) AS away
"""


@dataclass(frozen=True, slots=True)
class Blocker:
    """A cause for which an account or a run waits.

    Attributes:
      cause: The cause, for programs.
      reason: The reason, as part of a sentence.
      until: The time at which the wait ends, or the next try begins; None if it is unknown.
      ends: The end of the wait, as part of a sentence; `{until}` stands for the time.
      ahead: The number of tasks, or of accounts, that are served first; None if it is unknown.
      advice: The next step for a person, if there is one.
    """

    cause: WaitCause
    reason: str
    until: datetime | None = None
    ends: str = "until {until}"
    ahead: int | None = None
    advice: Advice | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """The open work of an account.

    Attributes:
      live, backfill: The ids of its open runs.
      held: The number of items whose deletion waits for a person.
    """

    id: UUID
    next_sync_at: datetime | None = None
    resync_due: bool = False
    live: UUID | None = None
    backfill: UUID | None = None
    held: int = 0


def facts(conn: Conn, accounts: Sequence[UUID]) -> dict[UUID, Facts]:
    """Return the open work of accounts, by id. A hidden account shows none."""
    cursor = conn.cursor(row_factory=dataclass_row(Facts))
    rows = cursor.execute(FACTS, {"accounts": list(accounts)}).fetchall()
    return {id: Facts(id) for id in accounts} | {row.id: row for row in rows}


def blockers(
    engine: Backend,
    conn: Conn,
    account: Account,
    now: Progress | None = None,
    *,
    shows_texts: bool = True,
) -> list[Blocker]:
    """Return the blockers of an account, the most important first; empty if nothing blocks it.

    Args:
      engine: The backend.
      conn: A connection.
      account: The account.
      now: The progress of its open run. Default: none is open.
      shows_texts: False to leave out the texts of plugins, which may quote the source.
    """
    found = _found(engine, conn, [account], is_open=now is not None, shows_texts=shows_texts)
    reasons = found[account.id]
    if now is None or now.state != RunState.RUNNING:
        return reasons
    if now.ready and not any(each.cause == WaitCause.REDIS for each in reasons):
        rates = _rates(engine, conn, account)
        named = {_limit_name(each) for each in rates}
        reasons = [each for each in reasons if _limit_name(each) not in named] + rates
    if not reasons and now.queued == 0:
        reasons = _snoozed(conn, now, shows_texts)
    return reasons or _threads(conn, account, now)


def first_blockers(
    engine: Backend, conn: Conn, accounts: Sequence[Account], *, shows_texts: bool = True
) -> dict[UUID, Blocker]:
    """Return the most important blocker of each account; accounts without one are left out.

    The number of queries does not depend on the number of accounts.

    Args:
      engine: The backend.
      conn: A connection.
      accounts: The accounts.
      shows_texts: As for `blockers`.
    """
    found = _found(engine, conn, accounts, is_open=False, shows_texts=shows_texts)
    return {id: of_account[0] for id, of_account in found.items() if of_account}


def _found(
    engine: Backend, conn: Conn, accounts: Sequence[Account], *, is_open: bool, shows_texts: bool
) -> dict[UUID, list[Blocker]]:
    fleet, quotas = _fleet(conn), _quotas(conn, accounts, is_open=is_open)
    breakers = _breakers(conn, accounts, shows_texts)
    blocks = _blocks(conn, accounts, shows_texts)
    open_work = facts(conn, [account.id for account in accounts])
    return {
        account.id: [
            *_status(account, shows_texts),
            *_paused(fleet, account),
            *_workers(fleet, account),
            *_scheduler(engine.settings, fleet.status, open_work[account.id]),
            *quotas[account.id],
            *breakers[account.id],
            *blocks[account.id],
        ]
        for account in accounts
    }


_OF_STATES = {
    AccountState.PAUSED: (WaitCause.PAUSED, "until a person resumes it"),
    AccountState.DISCONNECTED: (WaitCause.DISCONNECTED, "until it is connected again"),
    AccountState.ERASING: (WaitCause.DISCONNECTED, "until it is connected again"),
}
_OF_REASONS = {
    AccountStateReason.CONFIGURATION: (
        WaitCause.CONFIGURATION,
        "until its configuration is corrected",
    ),
}
_CREDENTIALS = (WaitCause.CREDENTIALS, "until it has new credentials")


def _status(account: Account, shows_texts: bool) -> list[Blocker]:
    state = account.sync_status
    if state == AccountState.ACTIVE:
        return []
    error, is_error = stopped(account), state == AccountState.ERROR
    if is_error and not shows_texts:
        error = WrongState("account-stopped", account=account.id)
    cause, ends = (
        _OF_REASONS.get(AccountStateReason(account.status_reason or "credentials"), _CREDENTIALS)
        if is_error
        else _OF_STATES[AccountState(state)]
    )
    return [Blocker(cause, error.message, ends=ends, advice=error.advice)]


@dataclass(frozen=True, slots=True)
class _Fleet:
    serving: Mapping[str, tuple[int, int]]
    status: Status
    redis_is_away: bool
    draining: bool
    paused: Mapping[str, Pause]


def _fleet(conn: Conn) -> _Fleet:
    serving = processes.serving(conn)
    draining = not serving and processes.draining(conn)
    away = bool(fetch(conn, REDIS_AWAY, {})[0]["away"])
    return _Fleet(serving, leadership.status(conn), away, draining, pauses.lasting(conn))


def _paused(fleet: _Fleet, account: Account) -> list[Blocker]:
    pause = fleet.paused.get(account.integration_domain)
    if pause is None:
        return []
    return [
        Blocker(
            WaitCause.INTEGRATION_PAUSED,
            f"an operator paused the integration {account.integration_domain}",
            pause.until,
            "until an operator resumes it" if pause.until is None else "until {until}",
            advice=Advice("resume-integration", {"domain": account.integration_domain}),
        )
    ]


def _workers(fleet: _Fleet, account: Account) -> list[Blocker]:
    domain = account.integration_domain
    ends = f"until a worker that serves {domain} starts"
    if not fleet.serving and fleet.draining:
        reason = "all running workers are draining and take no tasks"
        advice = Advice("restart-draining-workers")
        return [Blocker(WaitCause.WORKER, reason, ends=ends, advice=advice)]
    if not fleet.serving:
        advice = Advice("start-engine")
        return [Blocker(WaitCause.WORKER, "no worker is running", ends=ends, advice=advice)]
    if domain not in fleet.serving:
        advice = Advice("start-worker-with-plugin", {"domain": domain})
        return [Blocker(WaitCause.WORKER, f"no worker serves {domain}", ends=ends, advice=advice)]
    if not fleet.status.leads:
        ends, advice = "until another takes over, within 20 s", Advice("wait-for-leader")
        reason = "no dispatcher is leading"
        return [Blocker(WaitCause.DISPATCHER, reason, ends=ends, advice=advice)]
    if fleet.redis_is_away:
        reason, advice = "Redis does not answer, so no task is sent", Advice("check-redis")
        return [Blocker(WaitCause.REDIS, reason, ends="until Redis answers", advice=advice)]
    return []


def _scheduler(settings: Settings, status: Status, facts: Facts) -> list[Blocker]:
    """Return the schedule, if the account is due and the schedule fires too rarely for the leader.

    With a frequent schedule, the leader claims due accounts itself.
    """
    due, schedule = facts.next_sync_at, settings.cron_schedule
    if facts.live is not None or due is None or due > status.now or is_frequent(schedule):
        return []
    late = f"the account has been due since {moment(due)}"
    restart = Advice("check-scheduler")
    if status.last_tick_at is None:
        reason, advice = f"{late}, and the scheduler has not fired yet", restart
    elif (missed := missed_tick(schedule, status.silent_seconds)) < status.now - LATE_TICK:
        reason, advice = f"{late}, and the scheduler has been silent at {moment(missed)}", restart
    else:
        reason = f"{late}, and the schedule “{schedule}” starts no run before its next time"
        advice = Advice("start-run", {"account": facts.id})
    return [Blocker(WaitCause.SCHEDULER, reason, next_tick(schedule), advice=advice)]


def _threads(conn: Conn, account: Account, now: Progress) -> list[Blocker]:
    """Return the holder of all threads, if the tasks of a run wait for one.

    Accounts of other users are not named.
    """
    domain = account.integration_domain
    threads = processes.serving(conn).get(domain, (0, 0))[0]
    if not threads or not now.ready + now.queued:
        return []
    around = processes.neighbours(conn).get(domain, {domain})
    params = {"domain": domain, "account": account.id, "run": now.run["id"]}
    rows = fetch(conn, DISPATCHED, params | {"domains": sorted(around)})
    own = [row for row in rows if row["user_id"] == account.user_id]
    all_tasks = sum(row["tasks"] for row in rows)
    if sum(row["tasks"] for row in own) >= threads - reserved(threads):
        holder = f"account {own[0]['name']}"
    elif all_tasks >= threads:
        holder = "accounts of other users"
    else:
        return []
    return [
        Blocker(
            WaitCause.THREADS,
            f"all {counted(threads, 'thread')} of {domain} are busy with {holder}:"
            f" {counted(all_tasks, 'task')} ahead",
            ends="until a thread is free",
            ahead=all_tasks,
            advice=Advice("wait-for-threads"),
        )
    ]


def _quotas(conn: Conn, accounts: Sequence[Account], *, is_open: bool) -> dict[UUID, list[Blocker]]:
    """Return the quotas that the users of accounts have reached.

    Args:
      conn: A connection.
      accounts: The accounts.
      is_open: True for an open run: it needs no further run of the day.
    """
    users = sorted({account.user_id for account in accounts})
    reached: dict[str, list[Blocker]] = {user: [] for user in users}
    for row in fetch(conn, REACHED, {"users": users}):
        if row["is_full"]:
            text = f"the user's content has {size(row['bytes'])} of {size(row['most_bytes'])}"
            ends, advice = "until the user's content has room", Advice("free-quota")
            reached[row["user_id"]].append(Blocker(WaitCause.QUOTA, text, ends=ends, advice=advice))
        if not is_open and row["most_runs"] is not None and row["runs"] >= row["most_runs"]:
            text = f"the user has begun {row['runs']} of {row['most_runs']} runs of this day (UTC)"
            advice = Advice("raise-quota")
            reached[row["user_id"]].append(
                Blocker(WaitCause.QUOTA, text, row["tomorrow"], advice=advice)
            )
    return {account.id: reached[account.user_id] for account in accounts}


def _breakers(
    conn: Conn, accounts: Sequence[Account], shows_texts: bool
) -> dict[UUID, list[Blocker]]:
    found: dict[UUID, list[Blocker]] = {account.id: [] for account in accounts}
    for row in fetch(conn, BREAKERS_OF_ACCOUNTS, {"accounts": list(found)}):
        what = f"the provider has not answered {row['limit_name']}".rstrip()
        text = f"{what} since {moment(row['first_failed_at'])}"
        text += f": {row['reason']}" if shows_texts else ""
        ends, advice = "and the next try is at {until}", Advice("wait-for-provider")
        found[row["user_integration_id"]].append(
            Blocker(WaitCause.BREAKER, text, row["probe_at"], ends, advice=advice)
        )
    return found


def _blocks(
    conn: Conn, accounts: Sequence[Account], shows_texts: bool
) -> dict[UUID, list[Blocker]]:
    """Return the limits that a provider or a worker has found used up."""
    prefixes = {account.id: _prefixes(account) for account in accounts}
    rows = fetch(
        conn,
        BLOCKS_OF_KEYS,
        {"prefixes": sorted({prefix for of_account in prefixes.values() for prefix in of_account})},
    )
    return {
        account.id: [
            _limit(
                account,
                row["key"],
                f"is used up: {row['reason']}" if shows_texts else "is used up",
                row["until"],
            )
            for row in rows
            if row["key"].startswith(prefixes[account.id])
        ]
        for account in accounts
    }


def _prefixes(account: Account) -> tuple[str, ...]:
    """Return the key prefixes of all limits that apply to the account."""
    domain, group = account.integration_domain, account.limit_group
    return (
        f"account/{account.id}/",
        f"integration/{domain}/",
        *([f"group/{domain}/{group}/"] if group else []),
    )


def _limit(
    account: Account,
    key: str,
    text: str,
    until: datetime | None,
    ahead: int | None = None,
) -> Blocker:
    name = key.rpartition("/")[2]
    limit = "the provider's limit" if name == WHOLE_ACCOUNT else f"the limit “{name}”"
    is_own = key.startswith("account/")
    cause = WaitCause.RATE_LIMIT if is_own else WaitCause.SHARED_RATE_LIMIT
    advice = Advice("wait-for-limit", {"domain": account.integration_domain, "limit": name})
    if name == WHOLE_ACCOUNT:
        advice = Advice("wait-for-provider")
    return Blocker(cause, f"{limit} {text}", until, ahead=ahead, advice=advice)


def _limit_name(blocker: Blocker) -> object:
    """Return the name of a blocker's limit; None if it is not about a limit."""
    return blocker.advice.fields.get("limit") if blocker.advice is not None else None


def _rates(engine: Backend, conn: Conn, account: Account) -> list[Blocker]:
    """Return the rate limits that pace the tasks of an account now."""
    found = []
    for use in limits.rates_of(engine, conn, account):
        if not use.is_scarce:
            continue
        sharing, text = None, f"of {use.figures} is used up"
        if not use.key.startswith("account/"):
            group = account.limit_group if use.limit.by == "group" else None
            params = {"account": account.id, "domain": account.integration_domain, "group": group}
            sharing = fetch(conn, SHARING, params)[0]["accounts"]
            others = counted(sharing, "other account with an open run", "others with open runs")
            text = f"of {use.figures} is used up, and {others} may use it too"
        found.append(_limit(account, use.key, text, use.more_at, sharing))
    return found


def _snoozed(conn: Conn, now: Progress, shows_texts: bool) -> list[Blocker]:
    if now.next_at is None or now.next_at <= now.now:
        return []
    text = "the remaining tasks have a later start time"
    if not shows_texts:
        text = "tasks are postponed"
    elif why := fetch(conn, WHY_LATER, {"run": now.run["id"]}):
        text = f"tasks are postponed: {why[0]['reason']}"
    return [Blocker(WaitCause.POSTPONED, text, now.next_at, advice=Advice("wait-for-provider"))]
