"""Rate limits of the whole fleet: one budget in Redis for all workers, by Redis's own clock.

GCRA: a key holds the moment until which the budget is spent ("tat", in microseconds). A task is let
through if that is not more than a tolerance ahead of now, whatever it costs, so that heavy tasks
are not starved by light ones; what it costs moves the moment on. To never exceed `units` in any
window of `per` seconds, the steady rate is lowered by what the burst and the last, heaviest task
may add. All who take from a limit must therefore agree on its heaviest cost.

When Redis has lost the budgets, each begins as far spent as it could have been: slow, not open. A
mark tells "lost" from "never used".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import redis

from core.integration.limits import Rate

BURST_SHARE = 20
"""The burst is a twentieth of the units."""

# Where a budget stands: KEYS[i], with the mark, its interval and tolerance in microseconds, and its
# heaviest cost.
STAND = """
local function stand(key, mark, now, interval, tolerance, heaviest)
    local tat = tonumber(redis.call('GET', key))
    if not tat then
        tat = now
        if tonumber(mark) > 0 then tat = tonumber(mark) + tolerance + heaviest * interval end
    end
    if tat < now then tat = now end
    return tat
end
local mark = redis.call('GET', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""

# KEYS: the mark, then a budget each. ARGV: take (1) or force (2); then for each budget: interval
# and tolerance in microseconds, heaviest cost, units. Returns {-1} where the mark is missing,
# otherwise {wait in microseconds, the budget that says so}.
SCRIPT = (
    STAND
    + """
if not mark then return {-1, 0} end
local wait, which = 0, 0
local tats = {}
for i = 2, #KEYS do
    local at = 2 + (i - 2) * 4
    local interval, tolerance = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local tat = stand(KEYS[i], mark, now, interval, tolerance, tonumber(ARGV[at + 2]))
    local over = tat - tolerance - now
    if over > wait then wait, which = over, i - 1 end
    tats[i] = tat + tonumber(ARGV[at + 3]) * interval
end
if ARGV[1] == '2' or wait <= 0 then
    for i = 2, #KEYS do
        -- Kept until it is full again, and as long as a lost budget would be thought to be spent.
        redis.call('SET', KEYS[i], string.format('%.0f', tats[i]), 'PX',
            math.ceil((tats[i] - now) / 1000) + 1000)
    end
end
return {wait > 0 and math.ceil(wait) or 0, which}
"""
)

# KEYS as above; ARGV: interval, tolerance and heaviest cost of each budget. Returns the units each
# has left.
LEFT = (
    STAND
    + """
local left = {}
for i = 2, #KEYS do
    local at = 1 + (i - 2) * 3
    local interval, tolerance = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local heaviest = tonumber(ARGV[at + 2])
    local room = now + tolerance - stand(KEYS[i], mark or '0', now, interval, tolerance, heaviest)
    left[i - 1] = room < 0 and 0 or math.floor(room / interval) + heaviest
end
return left
"""
)

TAKE, FORCE = 1, 2


class UnitRequest(NamedTuple):
    """Units of one budget.

    Parameters:
      key: What the limit is counted under.
      heaviest: The most units that one task of this limit takes.
    """

    key: str
    limit: Rate
    units: int
    heaviest: int = 1


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A budget is exhausted: which (an index into what was asked), and for how many seconds."""

    index: int
    seconds: float


class Budgets:
    """Takes units of rate limits.

    Parameters:
      client: A client of Redis.
      key: Puts a name into the namespace of this fleet.
      first_use: Called when the mark is missing; True where no budget was ever counted in this
        ledger.
    """

    def __init__(
        self, client: redis.Redis, key: Callable[[str], str], first_use: Callable[[], bool]
    ) -> None:
        self._client = client
        self._key = key
        self._first_use = first_use
        self._script = client.register_script(SCRIPT)
        self._left = client.register_script(LEFT)

    def take(self, wanted: Sequence[UnitRequest]) -> Exhausted | None:
        """Take what is wanted of each budget, or of none if one of them is spent."""
        return self._run(TAKE, wanted)

    def left(self, wanted: Sequence[UnitRequest]) -> dict[str, int]:
        """Units that each budget has left, by key. Takes nothing."""
        if not wanted:
            return {}
        numbers = [
            number
            for request in wanted
            for number in (*gcra(request.limit, request.heaviest), request.heaviest)
        ]
        left = cast("list[int]", self._left(keys=self._keys(wanted), args=numbers))
        return dict(zip([request.key for request in wanted], left, strict=True))

    def charge(self, wanted: UnitRequest) -> None:
        """Take units even if none are left: debt, paid off before the next task."""
        self._run(FORCE, [wanted])

    def _run(self, mode: int, wanted: Sequence[UnitRequest]) -> Exhausted | None:
        if not wanted:
            return None
        arguments: list[Any] = [mode]
        for request in wanted:
            heaviest = max(request.heaviest, request.units if mode == TAKE else 1)
            arguments += [*gcra(request.limit, heaviest), heaviest, request.units]
        while True:
            wait, which = cast("list[int]", self._script(keys=self._keys(wanted), args=arguments))
            if wait >= 0:
                return Exhausted(which - 1, wait / 1_000_000) if wait else None
            self._mark()

    def _keys(self, wanted: Sequence[UnitRequest]) -> list[str]:
        return [
            self._key("budgets"),
            *(self._key(f"budget/{request.key}") for request in wanted),
        ]

    def _mark(self) -> None:
        """Redis knows nothing of budgets: new, or flushed.

        What is missing then was spent, as far as we know, at that moment.
        """
        seconds, microseconds = self._client.time()
        lost = 0 if self._first_use() else seconds * 1_000_000 + microseconds
        self._client.set(self._key("budgets"), lost, nx=True)


def gcra(limit: Rate, heaviest: int) -> tuple[int, int]:
    """Return (interval of one unit, tolerance) in microseconds, for at most `units` per window.

    Every window of `per` seconds respects that maximum.

    In a window, tasks are let through until `(per + tolerance) / interval` units are spent, and the
    last of them may cost the heaviest: `steady + burst - 2 + heaviest` units at most, with `steady`
    units of interval in a window. A task that costs more than the whole limit is let through all
    the same, and the budget is then in debt for as long as it takes.
    """
    # Next to a task that costs nearly all of the limit there is no room for a burst.
    burst = max(min(limit.units // BURST_SHARE, limit.units - heaviest + 1), 1)
    steady = max(limit.units - burst - heaviest + 2, 1)
    interval = -(-round(limit.per * 1_000_000) // steady)
    return interval, (burst - 1) * interval
