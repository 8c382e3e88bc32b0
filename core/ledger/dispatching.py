"""Claiming ready tasks for dispatch, in portions whose sizes the dispatcher computes."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from core.db.clocks import lasts, passed
from core.db.pool import Conn
from core.db.row_factory import dataclass_row
from core.integration.base import START
from core.ledger import quotas
from core.ledger.breakers import PROBE_DUE
from core.ledger.outcomes import Dispatch
from core.limits.keys import WHOLE_ACCOUNT
from core.states import AccountState, Lane, RunState, TaskState

AVAILABLE = passed("sync_task.available_at")
"""The condition on a row of `sync_task` that the task may be dispatched now."""

# Domains with open runs; only these can have ready tasks. Served by `sync_run_by_domain`: with its
# order, the plan stops at the first run (ADR 0095).
DOMAINS_WITH_WORK = f"""
SELECT domain FROM unnest(%s::text[]) AS domain
WHERE (SELECT r.user_integration_id FROM sync_run r
    WHERE r.state = '{RunState.RUNNING}' AND r.integration_domain = domain
    ORDER BY r.user_integration_id LIMIT 1) IS NOT NULL
"""

# Counts the queued tasks of a domain; it reads as many rows as the window is wide. Served by
# `sync_task_queued`. A task has hung if it was dispatched so long ago that its time limit has
# passed: the worker has replaced its thread.
_HUNG = "(t.dispatch_seq <= coalesce((%(hung)s::jsonb ->> t.type)::bigint, -1))"
IN_FLIGHT = f"""
SELECT a.user_id AS "user", t.user_integration_id::text AS account, a.limit_group AS "group",
    a.limits, t.lane, t.type, count(*),
    count(*) FILTER (WHERE {_HUNG}) AS hung,
    count(*) FILTER (WHERE t.dispatch_seq <= %(aged)s AND NOT {_HUNG}) AS aged,
    count(*) FILTER (WHERE t.dispatch_seq <= %(old)s AND NOT {_HUNG}) AS old
FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id
WHERE t.state = '{TaskState.QUEUED}' AND t.integration_domain = %(domain)s
GROUP BY 1, 2, 3, 4, 5, 6
"""

# The queued tasks of some users, the latest dispatches first. Served by `sync_task_queued`.
QUEUED_OF = f"""
SELECT a.user_id, t.id, t.dispatch_no, t.token
FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id
WHERE t.state = '{TaskState.QUEUED}' AND t.integration_domain = %s AND a.user_id = ANY(%s)
ORDER BY t.dispatch_seq DESC
"""

# The open runs `r` of a domain. Only their accounts can have ready tasks. `sync_run_by_domain`
# serves them. It has no entries of done tasks, which are many while vacuum cannot remove them.
_OPEN_RUNS = f"""FROM sync_run r
    WHERE r.state = '{RunState.RUNNING}' AND r.integration_domain = %(domain)s"""

# True for each lane in which the account `ring` has available tasks. It probes `sync_task_ready`
# from the back, because claims leave dead entries at the front.
_LANES = f"""
    (SELECT t.id FROM sync_task t
        WHERE t.state = '{TaskState.READY}' AND t.integration_domain = %(domain)s
        AND t.user_integration_id = ring.id AND t.lane = '{Lane.LIVE}' AND {AVAILABLE}
        ORDER BY t.priority, t.id DESC LIMIT 1) IS NOT NULL AS live,
    (SELECT t.id FROM sync_task t
        WHERE t.state = '{TaskState.READY}' AND t.integration_domain = %(domain)s
        AND t.user_integration_id = ring.id AND t.lane = '{Lane.BACKFILL}' AND {AVAILABLE}
        ORDER BY t.priority, t.id DESC LIMIT 1) IS NOT NULL AS backfill"""

# True if the account `ring` answers, or if its probe is due.
_ANSWERS = f"""NOT EXISTS (SELECT FROM breaker b WHERE b.user_integration_id = ring.id
    AND b.limit_name = '{WHOLE_ACCOUNT}' AND b.opened_at IS NOT NULL AND NOT {PROBE_DUE})"""

# Accounts with ready tasks: first accounts of users that hold no place, then accounts of all users
# but the full ones. Accounts are skipped that are not active or do not answer, whose tasks are all
# for later, or whose user has reached the quota of bytes. Each search has a slice of the ring of
# accounts with open runs, from behind the latest look: the slice bounds the number of accounts that
# a look passes over. The first search also covers the accounts of the tasks that became available
# last; `now()` can be a condition on an index, and `clock_timestamp()` cannot. The first columns
# name the ends of both slices.
WAITING = f"""
WITH slice AS MATERIALIZED (
    SELECT id, lap FROM (
        (SELECT DISTINCT r.user_integration_id AS id, 0 AS lap {_OPEN_RUNS}
            AND r.user_integration_id > %(after)s ORDER BY 1)
        UNION ALL
        (SELECT DISTINCT r.user_integration_id AS id, 1 AS lap {_OPEN_RUNS}
            AND r.user_integration_id <= %(after)s ORDER BY 1)
    ) ring LIMIT %(slice)s
), fresh AS MATERIALIZED (
    SELECT id, min(lap) AS lap FROM (
        (SELECT id, lap FROM (
            (SELECT DISTINCT r.user_integration_id AS id, 0 AS lap {_OPEN_RUNS}
                AND r.user_integration_id > %(fresh_after)s ORDER BY 1)
            UNION ALL
            (SELECT DISTINCT r.user_integration_id AS id, 1 AS lap {_OPEN_RUNS}
                AND r.user_integration_id <= %(fresh_after)s ORDER BY 1)
        ) ring LIMIT %(slice)s)
        UNION ALL
        (SELECT t.user_integration_id, 2 FROM sync_task t
         WHERE t.state = '{TaskState.READY}' AND t.integration_domain = %(domain)s
           AND t.dispatch_no >= 0 AND t.available_at <= now()
         ORDER BY t.available_at DESC LIMIT %(latest)s)
    ) found WHERE %(busy)s::text[] <> '{{}}' GROUP BY id
), waiting AS (
    (SELECT id, -1 AS lap, live, backfill FROM (
        SELECT ring.id, {_LANES} FROM fresh ring
        WHERE (SELECT u.sync_status = '{AccountState.ACTIVE}' AND u.user_id <> ALL (%(busy)s)
                AND NOT EXISTS ({quotas.IS_FULL})
            FROM user_integration u WHERE u.id = ring.id) AND {_ANSWERS} OFFSET 0
    ) able WHERE live OR backfill LIMIT %(most)s)
    UNION ALL
    (SELECT id, lap, live, backfill FROM (
        SELECT ring.id, ring.lap, {_LANES} FROM slice ring
        WHERE (SELECT u.sync_status = '{AccountState.ACTIVE}' AND u.user_id <> ALL (%(full)s)
                AND NOT EXISTS ({quotas.IS_FULL})
            FROM user_integration u WHERE u.id = ring.id) AND {_ANSWERS} OFFSET 0
    ) able WHERE live OR backfill LIMIT %(most)s)
)
SELECT (SELECT id FROM slice ORDER BY lap DESC, id DESC LIMIT 1) AS slice_end,
    (SELECT count(*) FROM slice) AS passed,
    (SELECT id FROM fresh WHERE lap < 2 ORDER BY lap DESC, id DESC LIMIT 1) AS fresh_end,
    w.lap, a.id::text AS account, a.user_id AS "user", a.limit_group AS "group", a.limits,
    w.live, w.backfill
FROM (SELECT) one LEFT JOIN waiting w ON true LEFT JOIN user_integration a ON a.id = w.id
ORDER BY w.lap, a.id
"""

# True if a task of the domain is available. It reads the first entry of `sync_task_by_time`. A
# task that is further ahead than it can be does not count: no index serves that rule.
ANY_AVAILABLE = f"""
SELECT coalesce((SELECT available_at FROM sync_task
    WHERE state = '{TaskState.READY}' AND integration_domain = %s AND dispatch_no >= 0
    ORDER BY available_at LIMIT 1) <= now(), false)
"""

# All blocked limits, and the open breakers of some accounts: served by the primary key.
BLOCKED_LIMITS = f"""
SELECT key, NULL AS account, NULL AS types, NULL AS probe_due FROM limit_block
WHERE {lasts("limit_block.until")}
UNION ALL
SELECT NULL, b.user_integration_id::text, b.types, {PROBE_DUE} FROM breaker b
WHERE b.user_integration_id = ANY(%s::uuid[]) AND b.opened_at IS NOT NULL
"""

# 64 random bits of the claim, hashed with the task. PostgreSQL's own take a system call for each.
RANDOM_BITS = "hashint8extended(t.id, %(bits)s)"

# The fields of a `Dispatch` from a task `t`, its account `a` and its run `r`, without its epoch and
# without `probe`.
DISPATCH_COLUMNS = """
    t.id AS task_id, t.dispatch_no, t.dispatch_seq, t.run_id::text AS run_id,
    t.user_integration_id::text AS account_id, a.version AS account_version, a.user_id AS "user",
    t.integration_domain AS domain, t.lane, r.trigger, t.type, t.payload, t.token,
    t.attempts, t.crashes, t.snoozes, t.suspect, t.deferrals,
    coalesce(extract(epoch FROM clock_timestamp() - t.first_failed_at), 0)::float
        AS failing_seconds"""

# Claims portions and marks them queued. Only the leader may do so. The share lock on the row of
# `engine_state` prevents concurrent claims of an old and a new leader, so that concurrency limits
# are counted exactly. Locked tasks are skipped. Tasks of capped types are picked separately, so
# that neither group blocks the other. If the probe of an open breaker is due, the first task is the
# probe. A breaker that opened since the leader read it makes no probes of the tasks of a portion.
CLAIM_TASKS = f"""
WITH me AS MATERIALIZED (
    SELECT epoch FROM engine_state
    WHERE leader = %(leader)s AND leader_until > clock_timestamp() FOR SHARE
), portion AS MATERIALIZED (
    SELECT p.* FROM me, json_to_recordset(%(portions)s::json)
        AS p(account uuid, lane text, most int, capped_types text[], cap int, without_types text[],
             ids bigint[], ids_only boolean)
), chosen AS MATERIALIZED (
    SELECT task.id FROM portion p CROSS JOIN LATERAL (
        (SELECT id, priority FROM sync_task
         WHERE state = '{TaskState.READY}' AND integration_domain = %(domain)s
           AND user_integration_id = p.account AND lane = p.lane
           AND {AVAILABLE} AND type <> ALL (p.without_types)
           AND type <> ALL (p.capped_types)
         ORDER BY priority DESC, id LIMIT CASE WHEN p.ids_only THEN 0 ELSE p.most END)
        UNION ALL
        (SELECT id, priority FROM sync_task
         WHERE state = '{TaskState.READY}' AND integration_domain = %(domain)s
           AND user_integration_id = p.account AND lane = p.lane
           AND {AVAILABLE} AND p.cap > 0 AND type = ANY (p.capped_types)
         ORDER BY priority DESC, id LIMIT p.cap)
        UNION ALL
        (SELECT id, priority FROM sync_task
         WHERE id = ANY (p.ids) AND state = '{TaskState.READY}' AND {AVAILABLE})
        ORDER BY priority DESC, id LIMIT p.most
    ) task
), picked AS MATERIALIZED (
    -- Arrays, so that the plan is a probe for each id however many tasks there are: as a join, it
    -- walked past all that are done.
    SELECT t.id FROM sync_task t WHERE t.id = ANY (ARRAY(SELECT id FROM chosen))
        AND t.state = '{TaskState.READY}'
    ORDER BY t.id FOR UPDATE SKIP LOCKED
), queued AS (
    UPDATE sync_task t SET state = '{TaskState.QUEUED}', dispatch_no = t.dispatch_no + 1,
        dispatch_seq = nextval('dispatch_seq'), token = {RANDOM_BITS},
        lease_until = clock_timestamp() + %(lease)s * interval '1 second', started_at = NULL
    WHERE t.id = ANY (ARRAY(SELECT id FROM picked))
    RETURNING t.*
), breakers AS MATERIALIZED (
    SELECT b.user_integration_id, b.limit_name FROM breaker b
    WHERE b.opened_at IS NOT NULL AND b.user_integration_id IN (SELECT account FROM portion)
      AND {PROBE_DUE}
    ORDER BY 1, 2 FOR UPDATE
), probing AS (
    UPDATE breaker b SET probe_task = (SELECT min(q.id) FROM queued q
        WHERE q.user_integration_id = b.user_integration_id
          AND (b.types IS NULL OR q.type = ANY (b.types)))
    FROM breakers l
    WHERE b.user_integration_id = l.user_integration_id AND b.limit_name = l.limit_name
      AND EXISTS (SELECT FROM queued q WHERE q.user_integration_id = b.user_integration_id
          AND (b.types IS NULL OR q.type = ANY (b.types)))
    RETURNING b.limit_name, b.probe_task
)
SELECT (SELECT epoch FROM me) AS epoch, {DISPATCH_COLUMNS},
    EXISTS (SELECT FROM probing p WHERE p.probe_task = t.id AND p.limit_name = '{WHOLE_ACCOUNT}')
        AS probe
FROM queued t JOIN user_integration a ON a.id = t.user_integration_id
JOIN sync_run r ON r.id = t.run_id
ORDER BY t.priority DESC, t.id
"""

# The first ready tasks of portions whose units are scarce, in the order in which they are due.
CANDIDATES = f"""
SELECT task.id, p.account::text AS account, p.lane, task.type, task.priority
FROM json_to_recordset(%(portions)s::json) AS p(account uuid, lane text, types text[])
CROSS JOIN LATERAL (
    SELECT id, type, priority FROM sync_task
    WHERE state = '{TaskState.READY}' AND integration_domain = %(domain)s
      AND user_integration_id = p.account AND lane = p.lane AND {AVAILABLE}
      AND (p.types IS NULL OR type = ANY (p.types))
    ORDER BY priority DESC, id LIMIT %(most)s
) task
ORDER BY task.priority DESC, task.id
"""

# Tasks that should be in Redis. The leader sends missing ones again, unchanged.
QUEUED_TASKS = f"""
SELECT id, dispatch_no FROM sync_task
WHERE state = '{TaskState.QUEUED}' AND integration_domain = %s
"""
AS_SENT = f"""
SELECT (SELECT epoch FROM engine_state) AS epoch, {DISPATCH_COLUMNS},
    EXISTS (SELECT FROM breaker b WHERE b.user_integration_id = t.user_integration_id
        AND b.limit_name = '{WHOLE_ACCOUNT}' AND b.opened_at IS NOT NULL AND b.probe_task = t.id)
        AS probe
FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id
JOIN sync_run r ON r.id = t.run_id
JOIN unnest(%s::bigint[], %s::int[]) AS named(id, dispatch_no) ON named.id = t.id
    AND named.dispatch_no = t.dispatch_no
WHERE t.state = '{TaskState.QUEUED}'
"""

TASKS_BY_DOMAIN = "SELECT domain, tasks FROM integration"

RING_START = UUID(int=0)

MAX_PASSED = 512
"""The number of accounts with open runs that one look passes over."""

MAX_CANDIDATES, MIN_CANDIDATES = 1_024, 16
"""Bounds of the numbers of ready tasks among which the dispatcher chooses, of all lanes and of one.

Lighter tasks behind the first ones of a lane wait until these are dispatched.
"""

DISPATCH_ROW = dataclass_row(Dispatch)


@dataclass(frozen=True, slots=True)
class InFlight:
    """The number of queued tasks of one account, lane and type.

    Attributes:
      hung: The number of tasks that exceeded their time limit, so that no thread runs them.
      aged: The number of other tasks that were dispatched early enough for a thread to run them.
      old: The number of other tasks that have run, or waited for a thread, for a minute.
    """

    user: str
    account: str
    group: str | None
    limits: list[dict[str, Any]]
    lane: str
    type: str
    count: int
    hung: int = 0
    aged: int = 0
    old: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """An active account with ready tasks, and the lanes that have them."""

    user: str
    account: str
    group: str | None
    limits: list[dict[str, Any]]
    live: bool
    backfill: bool


WAITING_FIELDS = tuple(each.name for each in fields(Waiting))


@dataclass(frozen=True, slots=True)
class RingLook:
    """The result of a look at the ring of accounts.

    Attributes:
      accounts: Accounts with ready tasks, those of users that hold no place first.
      end: The account at which the look ended; the next one starts behind it.
      fresh_end: The same for the look for users that hold no place.
      is_complete: True if the look has seen the complete ring.
      is_cut: True if there may be more accounts than it returns.
    """

    accounts: list[Waiting]
    end: UUID
    fresh_end: UUID
    is_complete: bool
    is_cut: bool


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """An open breaker of an account.

    Attributes:
      types: The task types that it holds back; None for all tasks of the account.
      probe_due: True if one task may start, as the probe.
    """

    types: list[str] | None
    probe_due: bool


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocked limits and open breakers, which hold back ready tasks.

    Attributes:
      limits: The keys of limits that are blocked.
      breakers: The open breakers by account.
    """

    limits: set[str] = field(default_factory=set)
    breakers: dict[str, list[OpenBreaker]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskPortion:
    """The number of tasks to claim from one lane of an account.

    Attributes:
      most: The maximum number of tasks.
      capped_types: Types that share a limit with little room.
      cap: The maximum number of tasks of the capped types together.
      without_types: Types that a limit blocks; none of their tasks is claimed.
      metered_types: Types that use scarce units of a rate limit. The dispatcher chooses their tasks
        among the candidates.
      ids: The chosen tasks.
      ids_only: True if no other tasks are claimed.
    """

    account: str
    lane: str
    most: int
    capped_types: list[str] = field(default_factory=list)
    cap: int = 0
    without_types: list[str] = field(default_factory=list)
    metered_types: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    ids_only: bool = False

    @property
    def candidate_types(self) -> list[str] | None:
        """The types among which the dispatcher chooses; None for all."""
        if not self.ids_only:
            return self.metered_types
        return [START, *self.metered_types] if self.without_types else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A ready task that may be claimed."""

    id: int
    account: str
    lane: str
    type: str
    priority: int = 0


@dataclass(slots=True)
class Catalog:
    """The costs of a domain's tasks, and the time limits that tasks declare, by type."""

    costs: dict[str, dict[str, int]] = field(default_factory=dict)
    time_limits: dict[str, float | None] = field(default_factory=dict)


def domains_with_work(conn: Conn, domains: Sequence[str]) -> list[str]:
    """Return the domains that have open runs, and so may have ready tasks."""
    return [domain for (domain,) in conn.execute(DOMAINS_WITH_WORK, (list(domains),))]


def in_flight(
    conn: Conn,
    domain: str,
    aged: int = -1,
    hung: Mapping[str, int] | None = None,
    old: int = -1,
) -> list[InFlight]:
    """Count the queued tasks of a domain.

    Args:
      conn: A connection.
      domain: The domain.
      aged: The `dispatch_seq` up to which tasks are aged. Default: none is.
      hung: The `dispatch_seq` up to which tasks of a type have hung. Default: none has.
      old: The `dispatch_seq` up to which tasks are old. Default: none is.
    """
    cursor = conn.cursor(row_factory=dataclass_row(InFlight))
    params = {"domain": domain, "aged": aged, "hung": json.dumps(dict(hung or {})), "old": old}
    return cursor.execute(IN_FLIGHT, params).fetchall()


def look(
    conn: Conn,
    domain: str,
    most: int,
    *,
    after: UUID = RING_START,
    fresh_after: UUID = RING_START,
    busy: Collection[str] = (),
    full: Collection[str] = (),
    latest: int = 0,
) -> RingLook:
    """Look for accounts with ready tasks, in a ring. The cost is bounded by `MAX_PASSED`.

    Args:
      conn: A connection.
      domain: The domain.
      most: The maximum number of accounts.
      after: The end of the latest look.
      fresh_after: The end of its look for users that hold no place.
      busy: The users that hold places. Accounts of all others come first.
      full: The users that hold their share. Their accounts are passed over.
      latest: The number of tasks, from the one that became available last, among which to search
        for users that hold no place. Default: 0.
    """
    params: dict[str, Any] = {"domain": domain, "most": most, "slice": MAX_PASSED}
    params |= {"after": after, "fresh_after": fresh_after, "latest": latest}
    params |= {"busy": list(busy), "full": list(full)}
    rows = conn.cursor(row_factory=dict_row).execute(WAITING, params).fetchall()
    accounts: dict[str, tuple[int, Waiting]] = {}
    for row in rows:
        if row["account"] is not None:
            found = Waiting(**{name: row[name] for name in WAITING_FIELDS})
            accounts.setdefault(found.account, (row["lap"], found))
    first = rows[0]
    kept = list(accounts.values())[:most]
    turn = [found for lap, found in kept if lap >= 0]
    is_cut = len(accounts) >= most
    end = UUID(turn[-1].account) if is_cut and turn else first["slice_end"] if not is_cut else after
    return RingLook(
        [found for _, found in kept],
        end or RING_START,
        first["fresh_end"] or RING_START,
        first["passed"] < MAX_PASSED and not is_cut,
        is_cut,
    )


def any_available(conn: Conn, domain: str) -> bool:
    """Return True if the time of a ready task of the domain has come."""
    ((available,),) = conn.execute(ANY_AVAILABLE, (domain,))
    return bool(available)


def queued_of(conn: Conn, domain: str, users: Sequence[str]) -> list[tuple[str, int, int, int]]:
    """Return (user, task, dispatch_no, token) of queued tasks, the latest dispatches first."""
    return conn.execute(QUEUED_OF, (domain, list(users))).fetchall()


def blocks(conn: Conn, accounts: Sequence[str]) -> Blocks:
    """Return all blocked limits, and the open breakers of these accounts."""
    found = Blocks()
    for key, account, types, probe_due in conn.execute(BLOCKED_LIMITS, (list(accounts),)):
        if account is None:
            found.limits.add(key)
        else:
            found.breakers.setdefault(account, []).append(OpenBreaker(types, probe_due))
    return found


def claim(
    conn: Conn, leader: UUID, domain: str, portions: Sequence[TaskPortion], lease_seconds: float
) -> list[Dispatch]:
    """Mark tasks as queued, and return their dispatches.

    Args:
      conn: A connection in autocommit mode.
      leader: The id of the calling dispatcher. If it no longer leads, nothing is claimed.
      domain: The domain of the tasks.
      portions: The numbers of tasks to claim.
      lease_seconds: The length of the tasks' leases.
    """
    encoded = json.dumps([asdict(portion) for portion in portions])
    params = {"leader": leader, "domain": domain, "portions": encoded, "lease": lease_seconds}
    params["bits"] = secrets.randbits(64) - 2**63
    return conn.cursor(row_factory=DISPATCH_ROW).execute(CLAIM_TASKS, params).fetchall()


def candidates(conn: Conn, domain: str, portions: Sequence[TaskPortion]) -> list[Candidate]:
    """Return the first ready tasks of metered portions, in the order in which they are due."""
    metered = [
        {"account": portion.account, "lane": portion.lane, "types": portion.candidate_types}
        for portion in portions
        if portion.metered_types
    ]
    if not metered:
        return []
    most = max(MAX_CANDIDATES // len(metered), MIN_CANDIDATES)
    params = {"domain": domain, "portions": json.dumps(metered), "most": most}
    cursor = conn.cursor(row_factory=dataclass_row(Candidate))
    return cursor.execute(CANDIDATES, params).fetchall()


def queued(conn: Conn, domain: str) -> dict[str, tuple[int, int]]:
    """Return (task, dispatch_no) of all queued tasks of a domain, by message id."""
    return {
        f"{task}-{number}": (task, number) for task, number in conn.execute(QUEUED_TASKS, (domain,))
    }


def as_sent(conn: Conn, tasks: Sequence[tuple[int, int]]) -> list[Dispatch]:
    """Return the dispatches of these (task, dispatch_no) that are still queued."""
    named = ([task for task, _ in tasks], [number for _, number in tasks])
    return conn.cursor(row_factory=DISPATCH_ROW).execute(AS_SENT, named).fetchall()


def catalogs(conn: Conn) -> dict[str, Catalog]:
    """Return costs and time limits by domain, as workers have registered them."""
    return {
        domain: Catalog(
            {START: {}} | {name: task.get("cost", {}) for name, task in tasks.items()},
            {START: None} | {name: task.get("time_limit") for name, task in tasks.items()},
        )
        for domain, tasks in conn.execute(TASKS_BY_DOMAIN)
    }
