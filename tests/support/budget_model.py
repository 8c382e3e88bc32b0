"""A model of the rate limit script in Redis, with a clock that the test advances."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.integration.limits import Rate
from core.limits.budgets import gcra


@dataclass
class Budget:
    """The units taken from one limit; all times are in microseconds."""

    limit: Rate
    heaviest: int = 1
    now: int = 0
    tat: int = 0
    taken: list[tuple[int, int]] = field(default_factory=list)

    def take(self, units: int) -> int:
        """Take units and return 0, or return the microseconds to wait."""
        wait = self.wait()
        if not wait:
            self.charge(units)
            self.taken.append((self.now, units))
        return wait

    def charge(self, units: int) -> None:
        """Take units even if the budget is spent."""
        interval, _ = gcra(self.limit, self.heaviest)
        self.tat = max(self.tat, self.now) + units * interval

    def wait(self) -> int:
        """Return the microseconds until units can be taken."""
        _, tolerance = gcra(self.limit, self.heaviest)
        return max(self.tat - tolerance - self.now, 0)

    def left(self) -> int:
        """Return the units that can be taken now, if the heaviest task takes the last ones."""
        interval, tolerance = gcra(self.limit, self.heaviest)
        room = self.now + tolerance - max(self.tat, self.now)
        return 0 if room < 0 else room // interval + self.heaviest

    def worst_window(self) -> int:
        """Return the largest number of units in any window of the limit."""
        window = round(self.limit.per * 1_000_000)
        return max(
            (
                sum(u for at, u in self.taken if begin <= at < begin + window)
                for begin, _ in self.taken
            ),
            default=0,
        )
