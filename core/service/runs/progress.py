"""The progress of a run, and the reasons why it waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core.accounts import store
from core.accounts.store import Account
from core.db.clocks import TODAY, TOMORROW, lasts
from core.db.pool import Conn
from core.db.rows import fetch
from core.errors import Advice, NotFound, WrongState
from core.ledger import leadership, processes
from core.ledger.completion import COUNTS, DELETIONS_HELD, SKIPPED, TASKS_OF_RUN
from core.ledger.pauses import Pause
from core.ledger.quotas import most
from core.limits.keys import WHOLE_ACCOUNT
from core.service.accounts.actions import stopped
from core.service.accounts.owed import Owed
from core.service.count_cache import CountCache
from core.service.fleet import pauses
from core.service.formatting import moment, number, size
from core.states import AccountState, Quota, RunState, TaskState
from core.worker.reserve import reserved

COUNTERS = (
    "tasks_done",
    "tasks_parked",
    "tasks_deferred",
    "outputs_saved",
    "outputs_unchanged",
    "outputs_deleted",
    "deletions_held",
)
"""The counters of a run: columns of its row, and attributes of its progress."""

RUN_COUNTERS = """
SELECT id, user_integration_id, integration_domain, lane, trigger, state, tasks_done, tasks_parked,
    tasks_deferred, outputs_saved, outputs_unchanged, outputs_deleted, deletions_held, skipped,
    error,
    extract(epoch FROM coalesce(finished_at, clock_timestamp()) - started_at)::float AS seconds
FROM sync_run WHERE id = %(run)s
"""
_REPORTING = f"t.state = '{TaskState.QUEUED}' AND t.progress_done IS NOT NULL"
CURRENT = f"""
SELECT c.*, {SKIPPED} AS skipped, {DELETIONS_HELD} AS deletions_held, clock_timestamp() AS now
FROM (VALUES (%(run)s::uuid)) AS r (id) CROSS JOIN (
    SELECT {COUNTS},
        count(*) AS known,
        count(*) FILTER (WHERE t.state = '{TaskState.QUEUED}') AS queued,
        count(*) FILTER (WHERE t.state = '{TaskState.READY}') AS ready,
        sum(t.progress_done) FILTER (WHERE {_REPORTING})::bigint AS reported_done,
        CASE WHEN bool_and(t.progress_total IS NOT NULL) FILTER (WHERE {_REPORTING})
            THEN sum(t.progress_total) FILTER (WHERE {_REPORTING})::bigint END AS reported_total,
        min(t.available_at) FILTER (WHERE t.state = '{TaskState.READY}') AS next_at
    FROM {TASKS_OF_RUN}
) c
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

# The accounts whose tasks are dispatched, with the most first. It reads as many rows as the windows
# are wide. Served by `sync_task_queued`.
DISPATCHED = f"""
SELECT a.id, a.user_id, a.name, count(*)::int AS tasks
FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id
WHERE t.state = '{TaskState.QUEUED}' AND t.integration_domain = ANY(%(domains)s)
GROUP BY a.id ORDER BY count(*) DESC, a.id
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


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a run at one moment.

    Attributes:
      run: The row of the run.
      skipped: The numbers of skipped items so far, by reason; None if there are none.
      known: The number of tasks so far. It may grow while the run is open. A task that was retried
        within the run counts once.
      reported_done: The units that the dispatched tasks report as done; None without a report.
      reported_total: The units of their complete work; None if a task does not know them.
      next_at: The earliest time at which a ready task may start.
      now: The time of the database.
    """

    run: dict[str, Any]
    known: int
    tasks_done: int
    tasks_parked: int
    tasks_deferred: int
    queued: int
    ready: int
    reported_done: int | None
    reported_total: int | None
    outputs_saved: int
    outputs_unchanged: int
    outputs_deleted: int
    deletions_held: int
    skipped: dict[str, int] | None
    next_at: datetime | None
    now: datetime

    @property
    def state(self) -> str:
        """The run's state."""
        return str(self.run["state"])

    def counters(self) -> dict[str, int]:
        """Return the counters: the recorded ones, or the current ones while the run is open."""
        open_ = self.state == RunState.RUNNING
        return {name: getattr(self, name) if open_ else self.run[name] for name in COUNTERS}

    def skipped_items(self) -> dict[str, int]:
        """Return the numbers of items that the run has listed and not fetched, by reason."""
        found = self.skipped if self.state == RunState.RUNNING else self.run["skipped"]
        return dict(sorted((found or {}).items()))

    def report(self) -> str:
        """Return the report of the dispatched tasks: `512 of 2,048`; empty without one."""
        if self.reported_done is None:
            return ""
        total = f" of {number(self.reported_total)}" if self.reported_total is not None else ""
        return f"{number(self.reported_done)}{total}"

    def summary(self, owed: Owed) -> dict[str, Any]:
        """Return the last line of `polling sync --wait --json`.

        Args:
          owed: The owed tasks of the run's account.
        """
        return {
            "run_id": str(self.run["id"]),
            "state": self.state,
            **self.counters(),
            "outputs_skipped": sum(self.skipped_items().values()),
            "skipped": self.skipped_items(),
            "owed": owed.tasks,
            "owed_since": owed.since,
            "seconds": round(self.run["seconds"], 3),
        }


@dataclass(frozen=True, slots=True)
class Blocker:
    """A reason why a run waits.

    Attributes:
      reason: The reason, as part of a sentence.
      until: The time at which the wait ends, if known.
      advice: The next step for a person, if there is one.
    """

    reason: str
    until: datetime | None = None
    advice: Advice | None = None


def progress(conn: Conn, run: UUID) -> Progress:
    """Count the tasks of a run by state.

    Raises:
      NotFound: The run does not exist.
    """
    rows = fetch(conn, RUN_COUNTERS, {"run": run})
    if not rows:
        raise NotFound("run-not-found", run=run)
    return Progress(rows[0], **fetch(conn, CURRENT, {"run": run})[0])


def cached(conn: Conn, counts: CountCache, run: UUID) -> Progress:
    """Return the progress of a run. That of a run with many tasks may be some seconds old.

    Raises:
      NotFound: The run does not exist.
    """
    return counts.get(("progress", run), lambda: progress(conn, run), lambda counted: counted.known)


def blockers(
    conn: Conn, account: Account, now: Progress | None = None, *, shows_texts: bool = True
) -> list[Blocker]:
    """Return the blockers of an account, the most important first; empty if nothing blocks it.

    Args:
      conn: A connection.
      account: The account.
      now: The progress of its open run. Default: none is open.
      shows_texts: False to leave out the texts of plugins, which may quote the source.
    """
    fleet = _fleet(conn)
    reasons = [
        *_status(account, shows_texts),
        *_paused(fleet, account),
        *_workers(fleet, account),
        *_quotas(conn, [account], is_open=now is not None)[account.id],
        *_breakers(conn, [account], shows_texts)[account.id],
        *_blocks(conn, [account], shows_texts)[account.id],
    ]
    if not reasons and now is not None and now.state == RunState.RUNNING and now.queued == 0:
        reasons = _snoozed(conn, now, shows_texts) or _threads(conn, fleet, account, now)
    return reasons


def first_blockers(
    conn: Conn, accounts: Sequence[Account], *, shows_texts: bool = True
) -> dict[UUID, Blocker]:
    """Return the most important blocker of each account; accounts without one are left out.

    The number of queries does not depend on the number of accounts.

    Args:
      conn: A connection.
      accounts: The accounts.
      shows_texts: As for `blockers`.
    """
    fleet, quotas = _fleet(conn), _quotas(conn, accounts)
    breakers = _breakers(conn, accounts, shows_texts)
    blocks = _blocks(conn, accounts, shows_texts)
    reasons = {
        account.id: [
            *_status(account, shows_texts),
            *_paused(fleet, account),
            *_workers(fleet, account),
            *quotas[account.id],
            *breakers[account.id],
            *blocks[account.id],
        ]
        for account in accounts
    }
    return {id: of_account[0] for id, of_account in reasons.items() if of_account}


def load_account(conn: Conn, run: Progress) -> Account:
    """Load the current account of a run."""
    return store.load(conn, run.run["user_integration_id"])


def _status(account: Account, shows_texts: bool) -> list[Blocker]:
    if account.sync_status != AccountState.ACTIVE:
        error = stopped(account)
        if account.sync_status == AccountState.ERROR and not shows_texts:
            error = WrongState("account-stopped", account=account.id)
        return [Blocker(error.message, advice=error.advice)]
    return []


@dataclass(frozen=True, slots=True)
class _Fleet:
    serving: Mapping[str, tuple[int, int]]
    leads: bool
    draining: bool
    paused: Mapping[str, Pause]


def _fleet(conn: Conn) -> _Fleet:
    status = leadership.status(conn)
    serving = processes.serving(conn)
    draining = not serving and processes.draining(conn)
    return _Fleet(serving, status.leads, draining, pauses.lasting(conn))


def _paused(fleet: _Fleet, account: Account) -> list[Blocker]:
    pause = fleet.paused.get(account.integration_domain)
    if pause is None:
        return []
    return [
        Blocker(
            f"an operator paused the integration {account.integration_domain}",
            pause.until,
            Advice("resume-integration", {"domain": account.integration_domain}),
        )
    ]


def _workers(fleet: _Fleet, account: Account) -> list[Blocker]:
    if not fleet.serving and fleet.draining:
        return [
            Blocker(
                "all running workers are draining and take no tasks",
                advice=Advice("restart-draining-workers"),
            )
        ]
    if not fleet.serving:
        return [Blocker("no worker is running", advice=Advice("start-engine"))]
    if account.integration_domain not in fleet.serving:
        domain = account.integration_domain
        return [
            Blocker(
                f"no worker serves {domain}",
                advice=Advice("start-worker-with-plugin", {"domain": domain}),
            )
        ]
    if not fleet.leads:
        return [Blocker("no dispatcher is leading; another takes over within 20 s")]
    return []


def _threads(conn: Conn, fleet: _Fleet, account: Account, now: Progress) -> list[Blocker]:
    """Return the holder of all threads, if an account has ready tasks and no thread is left.

    Accounts of other users are not named.
    """
    domain = account.integration_domain
    threads = fleet.serving.get(domain, (0, 0))[0]
    if not now.ready or not threads:
        return []
    around = processes.neighbours(conn).get(domain, {domain})
    rows = fetch(conn, DISPATCHED, {"domains": sorted(around)})
    own = [row for row in rows if row["user_id"] == account.user_id]
    if sum(row["tasks"] for row in own) >= threads - reserved(threads):
        return [Blocker(f"all threads of {domain} are busy with account {own[0]['name']}")]
    if sum(row["tasks"] for row in rows) >= threads:
        return [Blocker(f"all threads of {domain} are busy with accounts of other users")]
    return []


def _quotas(
    conn: Conn, accounts: Sequence[Account], *, is_open: bool = False
) -> dict[UUID, list[Blocker]]:
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
            kept = f"{size(row['bytes'])} of {size(row['most_bytes'])}"
            reached[row["user_id"]].append(
                Blocker(f"the user's content has {kept}", advice=Advice("free-quota"))
            )
        if not is_open and row["most_runs"] is not None and row["runs"] >= row["most_runs"]:
            text = f"the user has begun {row['runs']} of {row['most_runs']} runs of this day (UTC)"
            advice = Advice("raise-quota")
            reached[row["user_id"]].append(Blocker(text, row["tomorrow"], advice))
    return {account.id: reached[account.user_id] for account in accounts}


def _breakers(
    conn: Conn, accounts: Sequence[Account], shows_texts: bool
) -> dict[UUID, list[Blocker]]:
    found: dict[UUID, list[Blocker]] = {account.id: [] for account in accounts}
    for row in fetch(conn, BREAKERS_OF_ACCOUNTS, {"accounts": list(found)}):
        what = f"the provider has not answered {row['limit_name']}".rstrip()
        text = f"{what} since {moment(row['first_failed_at'])}"
        text += f": {row['reason']}" if shows_texts else ""
        found[row["user_integration_id"]].append(Blocker(text, row["probe_at"]))
    return found


def _blocks(
    conn: Conn, accounts: Sequence[Account], shows_texts: bool
) -> dict[UUID, list[Blocker]]:
    prefixes = {account.id: _prefixes(account) for account in accounts}
    rows = fetch(
        conn,
        BLOCKS_OF_KEYS,
        {"prefixes": sorted({prefix for of_account in prefixes.values() for prefix in of_account})},
    )
    return {
        id: [
            Blocker(_limit(row["key"], row["reason"] if shows_texts else None), row["until"])
            for row in rows
            if row["key"].startswith(of_account)
        ]
        for id, of_account in prefixes.items()
    }


def _prefixes(account: Account) -> tuple[str, ...]:
    """Return the key prefixes of all limits that apply to the account."""
    domain, group = account.integration_domain, account.limit_group
    return (
        f"account/{account.id}/",
        f"integration/{domain}/",
        *([f"group/{domain}/{group}/"] if group else []),
    )


def _limit(key: str, reason: str | None) -> str:
    name = key.rpartition("/")[2]
    limit = "the provider's limit" if name == WHOLE_ACCOUNT else f"the limit {name!r}"
    return f"{limit}: {reason}" if reason else limit


def _snoozed(conn: Conn, now: Progress, shows_texts: bool) -> list[Blocker]:
    if now.next_at is None or now.next_at <= now.now:
        return []
    if not shows_texts:
        return [Blocker("tasks are postponed", now.next_at)]
    why = fetch(conn, WHY_LATER, {"run": now.run["id"]})
    return [
        Blocker(
            f"tasks are postponed: {why[0]['reason']}"
            if why
            else "the remaining tasks have a later start time",
            now.next_at,
        )
    ]
