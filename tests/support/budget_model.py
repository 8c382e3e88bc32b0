"""A rate limit as the script in Redis counts it, by a clock that the test moves."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.integration.limits import Rate
from core.limits.budgets import gcra


@dataclass
class Budget:
    """What is taken of one limit; all times are microseconds."""

    limit: Rate
    heaviest: int = 1
    now: int = 0
    tat: int = 0
    taken: list[tuple[int, int]] = field(default_factory=list)

    def take(self, units: int) -> int:
        """0 if the units were there, otherwise how long to wait."""
        wait = self.wait()
        if not wait:
            self.charge(units)
            self.taken.append((self.now, units))
        return wait

    def charge(self, units: int) -> None:
        """Take them whether they are there or not."""
        interval, _ = gcra(self.limit, self.heaviest)
        self.tat = max(self.tat, self.now) + units * interval

    def wait(self) -> int:
        """How long nobody gets anything."""
        _, tolerance = gcra(self.limit, self.heaviest)
        return max(self.tat - tolerance - self.now, 0)

    def left(self) -> int:
        """Units that may be taken now, the last of them by the heaviest task."""
        interval, tolerance = gcra(self.limit, self.heaviest)
        room = self.now + tolerance - max(self.tat, self.now)
        return 0 if room < 0 else room // interval + self.heaviest

    def worst_window(self) -> int:
        """The most units that any window of the limit has seen."""
        window = round(self.limit.per * 1_000_000)
        return max(
            (
                sum(u for at, u in self.taken if begin <= at < begin + window)
                for begin, _ in self.taken
            ),
            default=0,
        )
