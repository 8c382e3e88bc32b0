"""A model of the scripts of budgets in Redis, with a clock that the test advances."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import accumulate

from core.integration.limits import Rate
from core.limits.budgets import UnitsLeft, times


@dataclass
class Reservation:
    """A cost that waits; times are in microseconds."""

    cost: int
    since: int
    start: int
    until: int


@dataclass
class Budget:
    """The units taken from one limit; all times are in microseconds.

    Attributes:
      log: Pairs of (time, units) that count, oldest first.
      owed: The units beyond the limit that are not paid yet.
      taken: All units that tasks took since the log began, with their times.
      lost: The units of earlier logs.
    """

    limit: Rate
    now: int = 0
    log: list[tuple[int, int]] = field(default_factory=list)
    owed: int = 0
    used: int = 0
    reserved: list[Reservation] = field(default_factory=list)
    taken: list[tuple[int, int]] = field(default_factory=list)
    lost: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.span, self.slot, self.hold, self.slack = times(self.limit)

    def take(self, units: int) -> int:
        """Take units and return 0, or return the microseconds to wait."""
        self._settle(self.now)
        cost = min(units, self.limit.units)
        wait = self._until_room(cost)
        first = self._reservation()
        if not wait and first and first.cost != cost and self._room_beside(first) < cost:
            both, rest = self._until_room(first.cost + cost), first.until - self.now
            wait = min(both, rest) if both else rest
        mine = next((one for one in self.reserved if one.cost == cost), None)
        if wait:
            if mine is None and len(self.reserved) < 8:
                mine = Reservation(cost, self.now, self.now + wait + self.slack, 0)
                self.reserved.append(mine)
            if mine is not None:
                mine.until = max(self.now + wait, mine.start) + self.hold
            self.used = self.now
            return wait
        self._spend(self.now, units)
        if mine is not None:
            self.reserved.remove(mine)
            for one in self.reserved:
                start = self.now + self._until_room(one.cost) + self.slack
                one.start = max(one.start, start)
        self.used = self.now
        self.taken.append((self.now, units))
        return 0

    def reserve(self, units: int) -> None:
        """Reserve units if they do not fit now."""
        room, taken = replace(self, log=list(self.log), taken=[]), self.reserved
        if room.take(units):
            self.reserved = room.reserved
        else:
            self.reserved = taken

    def charge(self, units: int) -> None:
        """Take units even if the budget is spent."""
        self._settle(self.now)
        self._spend(self.now, units)
        self.used = self.now

    def lose(self) -> None:
        """Count the rest of the limit as spent, as after a failover."""
        self._settle(self.now)
        self._spend(self.now, max(self.limit.units - self._sum(), 0))

    def flush(self) -> None:
        """Count the limit as spent, as after the loss of the log."""
        self.log, self.owed, self.reserved = [(self.now, self.limit.units)], 0, []
        self.lost, self.taken = [*self.lost, *self.taken], []

    def left(self) -> UnitsLeft:
        """Return the units that can be taken now."""
        self._settle(self.now)
        units = 0 if self.owed else self.limit.units - self._sum()
        first = self._reservation()
        others = units if first is None else min(units, self._room_beside(first))
        more = self._until_room(1) if self.owed else 0
        if not more and self.log:
            more = self.log[0][0] + self.span - self.now
        total = sum(units for _, units in self.taken)
        return UnitsLeft(units, first.cost if first else 0, others, more / 1_000_000, total)

    def _sum(self) -> int:
        return sum(units for _, units in self.log)

    def _spend(self, at: int, units: int) -> None:
        paid = min(units, self.limit.units - self._sum())
        self.owed += units - paid
        if not paid:
            return
        if self.log and self.log[-1][0] // self.slot == at // self.slot:
            self.log[-1] = (at, self.log[-1][1] + paid)
        else:
            self.log.append((at, paid))

    def _settle(self, now: int) -> None:
        self.reserved = [one for one in self.reserved if one.until > now]
        while self.log and self.log[0][0] + self.span <= now:
            at, _ = self.log.pop(0)
            owed, self.owed = self.owed, 0
            self._spend(at + self.span, owed)

    def _until_room(self, units: int) -> int:
        """Return the time until units fit, if nothing else is taken."""
        need = self.owed + min(units, self.limit.units) - (self.limit.units - self._sum())
        if need <= 0:
            return 0
        spans, need = divmod(need - 1, self._sum())
        left = accumulate(units for _, units in self.log)
        at = next(at for (at, _), gone in zip(self.log, left, strict=True) if gone > need)
        return at + (spans + 1) * self.span - self.now

    def _reservation(self) -> Reservation | None:
        return min(self.reserved, key=lambda one: one.since, default=None)

    def _room_beside(self, first: Reservation) -> int:
        moment = max(self.now + self._until_room(first.cost), first.start)
        if self.now + self.span <= moment:
            return self.limit.units
        counted = sum(units for at, units in self.log if at + self.span > moment)
        return max(self.limit.units - counted - first.cost, 0)


def worst_window(moments: list[tuple[int, int]], window: int) -> int:
    """Return the largest number of units in any window.

    Args:
      moments: Pairs of (time, units), in any order.
      window: The length of the window, in the unit of the times.
    """
    moments = sorted(moments)
    worst = counted = first = 0
    for at, units in moments:
        counted += units
        while moments[first][0] <= at - window:
            counted -= moments[first][1]
            first += 1
        worst = max(worst, counted)
    return worst
