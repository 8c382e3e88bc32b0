"""The limits of the fleet: how much of each is used, how much is left, and who waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from core.accounts.store import Account
from core.db.pool import Conn
from core.db.rows import fetch
from core.dispatcher.allocation import Rules
from core.errors import SettingsError
from core.integration.limits import Rate
from core.ledger import dispatching
from core.ledger.dispatching import Catalog, Waiting
from core.limits.budgets import UnitsLeft
from core.service.backend import Backend
from core.service.formatting import number, span
from core.states import Lane, TaskState
from core.transport.queues import REDIS_UNAVAILABLE

MAX_LOOKED = 100
"""The number of ready tasks of each lane whose types are looked at."""

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
        return f"{number(self.limit.units)} in {span(self.limit.per)}"


def rates_of(engine: Backend, conn: Conn, account: Account) -> list[RateUse]:
    """Return the use of the rate limits that the first ready tasks of an account need.

    The scarcest is first. Redis has the use: while it is away, the result is empty.
    """
    waiting = Waiting(
        account.user_id, str(account.id), account.limit_group, account.limits, True, True
    )
    params = {"account": account.id, "domain": account.integration_domain}
    types = {row["type"] for row in fetch(conn, READY_TYPES, params)}
    catalog = dispatching.catalogs(conn).get(account.integration_domain, Catalog())
    catalog = Catalog({type: cost for type, cost in catalog.costs.items() if type in types})
    found = rates(engine, account.integration_domain, catalog, [waiting])
    return sorted(found, key=lambda use: use.rest.units / use.limit.units)


def rates(
    engine: Backend, domain: str, catalog: Catalog, accounts: Sequence[Waiting]
) -> list[RateUse]:
    """Return the use of the rate limits of accounts of one integration."""
    rules = Rules(domain, catalog.costs, engine.settings.limits.get(domain, {}))
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
