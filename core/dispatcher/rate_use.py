"""The use of each rate limit by users, accounts and lanes in its latest period.

The leader remembers what it dispatched. A new leader begins without memory, and has equal shares
again after one period.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from core.integration.limits import Rate
from core.limits.budgets import SLOTS, times
from core.states import Lane

K = TypeVar("K")

PACE_SHARE = 8
"""Backfill is spread over the parts of a period that this number makes."""

PACE = 1.25
"""The units of backfill in one part, in multiples of the part's share of the limit."""


@dataclass(slots=True)
class LimitUse:
    """The units of one limit that were dispatched in its latest period.

    Attributes:
      users: The units of each user.
      accounts: The units of each account.
      lanes: The units of each account's lane.
    """

    limit: Rate
    users: Counter[str] = field(default_factory=Counter)
    accounts: Counter[str] = field(default_factory=Counter)
    lanes: Counter[tuple[str, str]] = field(default_factory=Counter)
    _slots: deque[tuple[float, Counter[tuple[str, str, str]]]] = field(default_factory=deque)

    def note(self, now: float, user: str, account: str, lane: str, units: int) -> None:
        """Count dispatched units."""
        if not self._slots or now - self._slots[-1][0] > self.limit.per / SLOTS:
            self._slots.append((now, Counter()))
        self._slots[-1][1][user, account, lane] += units
        self.users[user] += units
        self.accounts[account] += units
        self.lanes[account, lane] += units

    def expire(self, now: float) -> None:
        """Forget the units of earlier periods."""
        span = times(self.limit)[0] / 1_000_000
        while self._slots and self._slots[0][0] <= now - span:
            for (user, account, lane), units in self._slots.popleft()[1].items():
                _subtract(self.users, user, units)
                _subtract(self.accounts, account, units)
                _subtract(self.lanes, (account, lane), units)

    def pace_left(self, now: float) -> float:
        """Return the units that the backfill may use now. Its last task may cost more.

        Without a pace, it would use the complete limit in one burst, and live tasks would wait for
        the end of the period.
        """
        latest = sum(
            units
            for at, counts in self._backwards(now - self.limit.per / PACE_SHARE)
            for (_, _, lane), units in counts.items()
            if lane == Lane.BACKFILL
        )
        return PACE * self.limit.units / PACE_SHARE - latest

    def _backwards(self, since: float) -> Iterator[tuple[float, Counter[tuple[str, str, str]]]]:
        for at, counts in reversed(self._slots):
            if at < since:
                return
            yield at, counts


def _subtract(counter: Counter[K], key: K, units: int) -> None:
    counter[key] -= units
    if counter[key] <= 0:
        del counter[key]


class RateUse:
    """The use of all rate limits, by key."""

    def __init__(self) -> None:
        self._limits: dict[str, LimitUse] = {}

    def of(self, key: str, limit: Rate, now: float) -> LimitUse:
        """Return the use of a limit."""
        use = self._limits.setdefault(key, LimitUse(limit))
        use.limit = limit
        use.expire(now)
        return use

    def prune(self, now: float) -> None:
        """Forget limits that were not used for a period."""
        for key, use in list(self._limits.items()):
            use.expire(now)
            if not use.users:
                del self._limits[key]
