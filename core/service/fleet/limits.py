"""The limits of the fleet: how much of each is used, how much is left, and who waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from core.accounts.store import Account
from core.db.pool import Conn
from core.dispatcher.allocation import Rules
from core.errors import SettingsError
from core.integration.limits import Rate
from core.ledger import dispatching
from core.ledger.dispatching import Catalog, Waiting
from core.limits.budgets import UnitsLeft
from core.service.backend import Backend
from core.service.formatting import number, span
from core.transport.queues import REDIS_UNAVAILABLE

SCARCE_SHARE = 0.1
"""The share of a rate limit below which its units pace the tasks that need them."""


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
    """Return the use of the rate limits of an account, with the scarcest first.

    Redis has the use. While it is away, the result is empty.
    """
    waiting = Waiting(
        account.user_id, str(account.id), account.limit_group, account.limits, True, True
    )
    catalog = dispatching.catalogs(conn).get(account.integration_domain, Catalog())
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
