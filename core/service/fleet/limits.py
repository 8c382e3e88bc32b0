"""The limits of the fleet, their use, and the accounts that wait.

An operator changes the figures of a limit while the engine runs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from core.accounts.store import Account
from core.content.visible import ACCOUNT_IS_VISIBLE
from core.db.pool import Conn
from core.db.row_factory import dataclass_row
from core.db.rows import fetch
from core.dispatcher.allocation import Rules
from core.errors import InvalidInput, NotFound, SettingsError
from core.integration.limits import Concurrency, Limit, Rate
from core.ledger import audit, dispatching, limit_overrides
from core.ledger.dispatching import Catalog, InFlight, Waiting
from core.limits.budgets import UnitsLeft
from core.limits.keys import from_json, overridden
from core.service.backend import Backend
from core.service.formatting import counted, number, span
from core.settings import LimitOverride
from core.states import Act, AuditTarget, Lane, RunState, TaskState
from core.transport.queues import REDIS_UNAVAILABLE

MAX_LOOKED = 100
"""The number of ready tasks of each lane whose types count."""

MAX_ACCOUNTS = 500
"""The number of accounts with open runs whose budgets are listed."""

MAX_NAMED = 5
"""The number of waiting accounts that a budget names."""

SCARCE_SHARE = 0.1
"""The share of a rate limit below which its units pace the tasks that need them."""

# The types of the first ready tasks of each lane. `sync_task_ready` serves it.
READY_TYPES = f"""
SELECT DISTINCT t.type FROM unnest(ARRAY['{Lane.LIVE}', '{Lane.BACKFILL}']) AS l (lane)
CROSS JOIN LATERAL (
    SELECT type FROM sync_task WHERE state = '{TaskState.READY}'
        AND integration_domain = %(domain)s AND user_integration_id = %(account)s
        AND lane = l.lane
    ORDER BY priority DESC, id LIMIT {MAX_LOOKED}) t
"""
_READY = f"""SELECT FROM sync_task t WHERE t.state = '{TaskState.READY}'
        AND t.integration_domain = a.integration_domain AND t.user_integration_id = a.id"""
# Accounts with open runs and limits. `sync_run_open` serves it; for a user, the index of accounts
# that begins with the user does.
OPEN_ACCOUNTS = f"""
SELECT a.integration_domain AS domain, a.name, a.user_id AS "user", a.id::text AS account,
    a.limit_group AS "group", a.limits, EXISTS ({_READY} AND t.lane = '{Lane.LIVE}') AS live,
    EXISTS ({_READY} AND t.lane = '{Lane.BACKFILL}') AS backfill
FROM user_integration a
WHERE (%(user)s::text IS NULL OR a.user_id = %(user)s) AND jsonb_array_length(a.limits) > 0
  AND {ACCOUNT_IS_VISIBLE}
  AND EXISTS (SELECT FROM sync_run r
      WHERE r.user_integration_id = a.id AND r.state = '{RunState.RUNNING}')
ORDER BY a.id LIMIT {MAX_ACCOUNTS}
"""
# Limits that depend on the config of an account.
LIMITS_OF_ACCOUNTS = f"""
SELECT limits FROM user_integration WHERE integration_domain = %(domain)s
ORDER BY created_at DESC, id DESC LIMIT {MAX_LOOKED}
"""


@dataclass(frozen=True, slots=True)
class RateUse:
    """The use of one budget of a rate limit.

    Attributes:
      key: The key of the budget: `account/…`, `group/…` or `integration/…`.
      limit: The limit, with the operator's figures.
      least: The units that the lightest task takes.
      rest: The units left.
      at: The time of the reading.
    """

    key: str
    limit: Rate
    least: int
    rest: UnitsLeft
    at: datetime

    @property
    def is_scarce(self) -> bool:
        """True if the units pace the tasks that need them."""
        return self.rest.units < max(self.least, SCARCE_SHARE * self.limit.units)

    @property
    def more_at(self) -> datetime | None:
        """The time at which more units are left; None if all are left."""
        if not self.rest.more_in:
            return None
        return self.at + timedelta(seconds=self.rest.more_in)

    @property
    def figures(self) -> str:
        """The figures of the limit, for people: `6,000 in 1 min`."""
        return figures(self.limit)


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """The use of one budget of a limit: that of an account, of a group, or of the integration.

    Attributes:
      key: The key of the budget.
      used: The units that count in the latest period, or the tasks in progress.
      left: The units, or the tasks, that may still start.
      more_at: The time at which more units are left; None if all are, and for tasks.
      waiting: The names of accounts that wait for it: the first ones, by id.
      waiting_accounts: The number of accounts that wait for it.
    """

    key: str
    used: int
    left: int
    more_at: datetime | None
    waiting: Mapping[str, str]
    waiting_accounts: int


@dataclass(slots=True)
class LimitUse:
    """A limit of an integration, with its budgets in use.

    Attributes:
      domain: The domain of the integration.
      limit: The limit, with the operator's figures.
      is_changed: True if an operator has changed it while the engine ran.
      budgets: The budgets of accounts with open runs, the scarcest first.
    """

    domain: str
    limit: Limit
    is_changed: bool
    budgets: list[BudgetUse] = field(default_factory=list)

    @property
    def figures(self) -> str:
        """The figures of the limit, for people."""
        return figures(self.limit)


@dataclass(frozen=True, slots=True)
class _Open(Waiting):
    domain: str = ""
    name: str = ""


def figures(limit: Limit) -> str:
    """Return the figures of a limit, for people: `6,000 in 1 min` or `8 tasks at a time`."""
    if isinstance(limit, Concurrency):
        return f"{counted(limit.tasks, 'task')} at a time"
    return f"{number(limit.units)} in {span(limit.per)}"


def rates_of(engine: Backend, conn: Conn, account: Account) -> list[RateUse]:
    """Return the use of the rate limits that the first ready tasks of an account need.

    The scarcest is first. Redis has the use: while it is away, the result is empty.
    """
    domain = account.integration_domain
    waiting = Waiting(
        account.user_id, str(account.id), account.limit_group, account.limits, True, True
    )
    params = {"account": account.id, "domain": domain}
    types = {row["type"] for row in fetch(conn, READY_TYPES, params)}
    catalog = dispatching.catalogs(conn).get(domain, Catalog())
    costs = {type: cost for type, cost in catalog.costs.items() if type in types}
    found = _rates(engine, Rules(domain, costs, engine.limits(conn).get(domain, {})), [waiting])
    return sorted(found, key=lambda use: use.rest.units / use.limit.units)


def _rates(engine: Backend, rules: Rules, accounts: Sequence[Waiting]) -> list[RateUse]:
    try:
        requests = rules.rates(accounts)
        left = engine.budgets.left(requests)
    except (SettingsError, *REDIS_UNAVAILABLE):
        return []
    now = datetime.now(UTC)
    return [
        RateUse(request.key, request.limit, _least(rules, request.limit), left[request.key], now)
        for request in requests
    ]


def _least(rules: Rules, limit: Rate) -> int:
    weights: Iterable[int] = (rules.weight(limit, type) for type in rules.costs)
    return min((weight for weight in weights if weight), default=1)


def in_use(engine: Backend, conn: Conn, user: str | None = None) -> list[LimitUse]:
    """Return all limits, each with the budgets of accounts with open runs.

    Args:
      engine: The backend.
      conn: A connection.
      user: Only the budgets of this user's accounts. Default: those of all users.
    """
    overrides, changed = engine.limits(conn), limit_overrides.changed(conn)
    catalogs = dispatching.catalogs(conn)
    cursor = conn.cursor(row_factory=dataclass_row(_Open))
    accounts: dict[str, list[_Open]] = defaultdict(list)
    for row in cursor.execute(OPEN_ACCOUNTS, {"user": user}, prepare=False):
        accounts[row.domain].append(row)
    found: list[LimitUse] = []
    for domain in sorted(engine.registry.integrations.keys() | accounts.keys()):
        rules = Rules(domain, catalogs.get(domain, Catalog()).costs, overrides.get(domain, {}))
        limits = {limit.name: limit for limit in _defined(engine, domain, rules, accounts[domain])}
        uses = {
            name: LimitUse(domain, limit, (domain, name) in changed)
            for name, limit in limits.items()
        }
        for name, budget in _budgets(engine, conn, rules, accounts[domain]):
            if name in uses:
                uses[name].budgets.append(budget)
        for use in uses.values():
            use.budgets.sort(key=lambda budget: (-budget.waiting_accounts, budget.left))
        found += uses.values()
    return found


def _defined(
    engine: Backend, domain: str, rules: Rules, accounts: Sequence[_Open]
) -> Iterator[Limit]:
    """Yield the limits of a plugin, and those of its accounts, with the operator's figures."""
    integration = engine.registry.integrations.get(domain)
    limits = {limit.name: limit for limit in integration.manifest.limits} if integration else {}
    limits |= {limit.name: limit for each in accounts for limit in from_json(each.limits)}
    try:
        yield from overridden(limits.values(), rules.overrides)
    except SettingsError:
        yield from limits.values()


def _budgets(
    engine: Backend, conn: Conn, rules: Rules, accounts: Sequence[_Open]
) -> Iterator[tuple[str, BudgetUse]]:
    """Yield the budgets of accounts, each with the name of its limit."""
    names = {each.account: each.name for each in accounts}
    waiting: dict[str, list[str]] = defaultdict(list)
    places: dict[str, Concurrency] = {}
    try:
        for each in accounts:
            for limit in rules.limits(each):
                key = rules.key(limit, each)
                if isinstance(limit, Concurrency):
                    places[key] = limit
                if each.live or each.backfill:
                    waiting[key].append(each.account)
    except SettingsError:
        return
    flying = dispatching.in_flight(conn, rules.domain) if places else []
    used = _in_progress(rules, flying)
    for use in _rates(engine, rules, accounts):
        ids = waiting[use.key] if use.is_scarce else []
        taken = max(use.limit.units - use.rest.units, 0)
        yield use.limit.name, _budget(use.key, taken, use.rest.units, use.more_at, ids, names)
    for key, limit in places.items():
        left = max(limit.tasks - used[key], 0)
        ids = [] if left else waiting[key]
        yield limit.name, _budget(key, used[key], left, None, ids, names)


def _budget(
    key: str,
    used: int,
    left: int,
    more_at: datetime | None,
    ids: Sequence[str],
    names: Mapping[str, str],
) -> BudgetUse:
    return BudgetUse(key, used, left, more_at, {id: names[id] for id in ids[:MAX_NAMED]}, len(ids))


def _in_progress(rules: Rules, flying: Iterable[InFlight]) -> Counter[str]:
    used = Counter[str]()
    for flight in flying:
        for limit in rules.limits(flight):
            if isinstance(limit, Concurrency):
                weight = rules.weight(limit, flight.type)
                used[rules.key(limit, flight)] += flight.count * weight
    return used


def change(engine: Backend, domain: str, name: str, figures: LimitOverride) -> LimitUse:
    """Change figures of a limit. Workers and the leader apply them within seconds.

    Args:
      engine: The backend.
      domain: The domain of the integration.
      name: The name of the limit.
      figures: The new figures; the others stay.

    Raises:
      NotFound: The integration has no such limit.
      InvalidInput: The limit has no such figure, or no figure is given.
    """
    if not figures.model_dump(exclude_none=True):
        raise InvalidInput("limit-without-figures", limit=name)
    with engine.database.connection() as conn, conn.transaction():
        limit = _limit(engine, conn, domain, name)
        try:
            overridden([limit], {name: figures})
        except SettingsError as error:
            raise InvalidInput("limit-figure-unknown", reason=error.message) from None
        earlier = limit_overrides.changed(conn).get((domain, name), LimitOverride())
        merged = earlier.model_copy(update=figures.model_dump(exclude_none=True))
        limit_overrides.change(conn, domain, name, merged)
        _record(conn, domain, name, figures.model_dump(exclude_none=True))
    return _shown(engine, domain, name)


def reset(engine: Backend, domain: str, name: str) -> LimitUse:
    """Restore the figures of the settings, or the figures of the plugin.

    Raises:
      NotFound: The integration has no such limit.
    """
    with engine.database.connection() as conn, conn.transaction():
        _limit(engine, conn, domain, name)
        if (domain, name) in limit_overrides.changed(conn):
            limit_overrides.change(conn, domain, name, LimitOverride())
            _record(conn, domain, name, {})
    return _shown(engine, domain, name)


def _record(conn: Conn, domain: str, name: str, figures: Mapping[str, object]) -> None:
    audit.record(
        conn,
        Act.LIMIT_CHANGE,
        AuditTarget.LIMIT,
        f"{domain}/{name}",
        integration_domain=domain,
        name=name,
        figures=figures,
    )


def _limit(engine: Backend, conn: Conn, domain: str, name: str) -> Limit:
    integration = engine.registry.get(domain)
    rows = fetch(conn, LIMITS_OF_ACCOUNTS, {"domain": domain})
    kept = (limit for row in rows for limit in from_json(row["limits"]))
    for limit in (*integration.manifest.limits, *kept):
        if limit.name == name:
            return limit
    raise NotFound("limit-not-found", domain=domain, limit=name)


def _shown(engine: Backend, domain: str, name: str) -> LimitUse:
    with engine.database.connection() as conn:
        limit = _limit(engine, conn, domain, name)
        [limit] = overridden([limit], engine.limits(conn).get(domain, {}))
        return LimitUse(domain, limit, (domain, name) in limit_overrides.changed(conn))
