"""The headroom of rate limits, and their use by the tasks that were dispatched.

A task whose budget is exhausted stays in the ledger instead of waiting in Redis.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from core.dispatcher.allocation import Rules
from core.dispatcher.rate_use import LimitUse, RateUse
from core.integration.limits import Rate
from core.ledger.dispatching import Waiting
from core.ledger.outcomes import Dispatch
from core.limits.budgets import SLOTS, Budgets, UnitRequest, UnitsLeft

IN_FLIGHT_SECONDS = 2.0
"""The time for which units of dispatched tasks count here, if no worker takes them."""

MIN_WAIT_SECONDS = 0.02
PRUNE_SECONDS = 60.0


@dataclass(slots=True)
class _OnTheWay:
    """Dispatched units of one budget that workers have not taken yet, oldest first.

    Attributes:
      taken: The number of units that the budget has counted since its log began.
    """

    units: deque[tuple[float, int]] = field(default_factory=deque)
    taken: int = 0

    def settle(self, taken: int, now: float) -> int:
        """Remove units that workers have taken or that are too old, and return the rest."""
        gone = max(taken - self.taken, 0)
        self.taken = taken
        while self.units and (gone or self.units[0][0] < now - IN_FLIGHT_SECONDS):
            at, units = self.units.popleft()
            if at >= now - IN_FLIGHT_SECONDS and units > gone:
                self.units.appendleft((at, units - gone))
                gone = 0
            else:
                gone = max(gone - units, 0)
        return sum(units for _, units in self.units)


class RateHeadroom:
    """The units left in budgets, less those of dispatched tasks that no worker has started.

    It takes no units: the workers do. It reserves units for tasks that do not fit.
    """

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._on_the_way: dict[str, _OnTheWay] = {}
        self._use = RateUse()
        self._prune_due = 0.0

    def left(self, requests: Sequence[UnitRequest]) -> dict[str, UnitsLeft]:
        """Return the units left, by key."""
        if not requests:
            return {}
        now = time.monotonic()
        if now >= self._prune_due:
            self._prune_due = now + PRUNE_SECONDS
            self._use.prune(now)
            for key in [key for key, sent in self._on_the_way.items() if not sent.units]:
                del self._on_the_way[key]
        left = self._budgets.left(requests)
        for key, units in left.items():
            if (on_the_way := self._on_the_way.get(key)) is not None:
                left[key] = units.less(on_the_way.settle(units.taken, now))
        return left

    def apply(
        self, rules: Rules, waiting: Sequence[Waiting], requests: Sequence[UnitRequest]
    ) -> tuple[Rules, dict[str, LimitUse]]:
        """Return the rules with the units left of the rate limits.

        Args:
          rules: The rules of a domain.
          waiting: The accounts with ready tasks.
          requests: The requests of their limits.

        Returns:
          The rules, and the use of each limit in its latest period.
        """
        if not requests:
            return rules, {}
        now = time.monotonic()
        uses = {request.key: self._use.of(request.key, request.limit, now) for request in requests}
        return with_use(replace(rules, available=self.left(requests)), waiting, uses, now), uses

    def reserve(self, requests: Iterable[UnitRequest]) -> None:
        """Reserve units for tasks that do not fit yet."""
        for request in requests:
            self._budgets.reserve(request)

    def note(
        self,
        rules: Rules,
        waiting: Sequence[Waiting],
        dispatches: Sequence[Dispatch],
        requests: Sequence[UnitRequest],
    ) -> None:
        """Remember the units that these dispatches will take."""
        if not requests:
            return
        accounts = {account.account: account for account in waiting}
        now = time.monotonic()
        for dispatch in dispatches:
            account = accounts[dispatch.account_id]
            for limit in rules.limits(account):
                units = rules.weight(limit, dispatch.type)
                if isinstance(limit, Rate) and units:
                    key = rules.key(limit, account)
                    if key not in self._on_the_way:
                        taken = rules.available[key].taken if key in rules.available else 0
                        self._on_the_way[key] = _OnTheWay(taken=taken)
                    self._on_the_way[key].units.append((now, units))
                    use = self._use.of(key, limit, now)
                    use.note(now, account.user, account.account, dispatch.lane, units)


def with_use(
    rules: Rules, waiting: Sequence[Waiting], uses: Mapping[str, LimitUse], now: float
) -> Rules:
    """Return the rules with the rivals of each rate limit, and the paces of the backfill."""
    rated = rules.rated(waiting)
    live = {key for key, account in rated if account.live}
    paces = {key: use.pace_left(now) for key, use in uses.items() if key not in live}
    return replace(rules, paces=paces, rivals=Counter(key for key, _ in rated))


def retry_in(rules: Rules, requests: Iterable[UnitRequest]) -> float:
    """Return the seconds until the first of these budgets has more units for some task.

    Without a budget in use, the result is infinite.
    """
    waits = [units.more_in for units in rules.available.values() if units.more_in > 0]
    paced = [request.limit for request in requests if rules.paces.get(request.key, inf) <= 0]
    waits += [limit.per / SLOTS for limit in paced]
    return max(min(waits), MIN_WAIT_SECONDS) if waits else inf
