"""Rate limits of the whole fleet: one budget in Redis for all workers, by Redis's own clock.

GCRA: a key holds the moment until which the budget is spent ("tat", in microseconds). Tasks take units and move it on; the
budget may run ahead of steady use by a burst. To never exceed `units` in any window of `per` seconds, the steady rate is lowered by
what the burst may add: `units - burst + 1` per window.

When Redis has lost the budgets they begin spent rather than full: slow, not open. A mark tells "lost" from "never used".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from core.integration.limits import Rate
from core.queues import Queues

BURST_SHARE = 20
"""The burst is a twentieth of the units, and at least the cost of a task."""

# KEYS: the mark, then a budget each. ARGV: take (1) or force (2); then for each budget: interval and burst in microseconds, units,
# window in microseconds. Returns {-1} where the mark is missing, otherwise {wait in microseconds, the budget that says so}.
SCRIPT = """
local mark = redis.call('GET', KEYS[1])
if not mark then return {-1, 0} end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local wait, which = 0, 0
local tats = {}
for i = 2, #KEYS do
    local at = 2 + (i - 2) * 4
    local interval, burst = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local units, window = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local tat = tonumber(redis.call('GET', KEYS[i]))
    if not tat then
        tat = now
        if now - tonumber(mark) < window then tat = now + burst end
    end
    if tat < now then tat = now end
    tats[i] = tat + units * interval
    local over = tats[i] - burst - now
    if over > wait then wait, which = over, i - 1 end
end
if ARGV[1] == '2' or (ARGV[1] == '1' and wait <= 0) then
    for i = 2, #KEYS do
        local ttl = math.ceil((tats[i] - now) / 1000) + 1000
        redis.call('SET', KEYS[i], string.format('%.0f', tats[i]), 'PX', ttl)
    end
end
return {wait > 0 and math.ceil(wait) or 0, which}
"""

# KEYS as above; ARGV: interval, burst and window of each budget. Returns the units each has left.
LEFT = """
local mark = redis.call('GET', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local left = {}
for i = 2, #KEYS do
    local at = 1 + (i - 2) * 3
    local interval, burst, window = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local tat = tonumber(redis.call('GET', KEYS[i]))
    if not tat then
        tat = now
        if mark and now - tonumber(mark) < window then tat = now + burst end
    end
    if tat < now then tat = now end
    left[i - 1] = math.max(math.floor((now + burst - tat) / interval), 0)
end
return left
"""

TAKE, FORCE = 1, 2


@dataclass(frozen=True, slots=True)
class Wait:
    """A budget is exhausted: which (an index into what was asked), and for how many seconds."""

    index: int
    seconds: float


class Budgets:
    """Takes units of rate limits.

    Parameters:
      first_use: Called when the mark is missing; True where no budget was ever counted in this ledger.
    """

    def __init__(self, queues: Queues, first_use: Callable[[], bool]) -> None:
        self._queues = queues
        self._first_use = first_use
        self._script = queues.client.register_script(SCRIPT)
        self._left = queues.client.register_script(LEFT)

    def take(self, wanted: Sequence[tuple[str, Rate, int]]) -> Wait | None:
        """Take units of each (key, limit, units), or of none if one of them has too few left."""
        return self._run(TAKE, wanted)

    def left(self, wanted: Sequence[tuple[str, Rate, int]]) -> dict[str, int]:
        """Units that (key, limit, heaviest cost) have left, by key. Takes nothing."""
        if not wanted:
            return {}
        keys = [self._queues.key("budgets"), *(self._queues.key(f"budget/{key}") for key, _, _ in wanted)]
        numbers = [number for _, limit, cost in wanted for number in (*gcra(limit, cost), round(limit.per * 1_000_000))]
        return dict(
            zip([key for key, _, _ in wanted], cast("list[int]", self._left(keys=keys, args=numbers)), strict=True)
        )

    def charge(self, key: str, limit: Rate, units: int) -> None:
        """Take units even if there are none left: debt, to be paid off before anybody takes more."""
        self._run(FORCE, [(key, limit, units)])

    def _run(self, mode: int, wanted: Sequence[tuple[str, Rate, int]]) -> Wait | None:
        if not wanted:
            return None
        keys = [self._queues.key("budgets"), *(self._queues.key(f"budget/{key}") for key, _, _ in wanted)]
        arguments: list[Any] = [mode]
        for _, limit, units in wanted:
            arguments += [*gcra(limit, units), units, round(limit.per * 1_000_000)]
        while True:
            wait, which = cast("list[int]", self._script(keys=keys, args=arguments))
            if wait >= 0:
                return Wait(which - 1, wait / 1_000_000) if wait else None
            self._mark()

    def _mark(self) -> None:
        """Redis knows nothing of budgets: new, or flushed. What is missing within a window of the mark counts as spent."""
        seconds, microseconds = self._queues.client.time()
        lost = 0 if self._first_use() else seconds * 1_000_000 + microseconds
        self._queues.client.set(self._queues.key("budgets"), lost, nx=True)


def gcra(limit: Rate, cost: int) -> tuple[int, int]:
    """(interval of one unit, burst), in microseconds, such that no window of `per` seconds ever sees more than `units`.

    A single task that costs more than the whole limit is let through when the budget is full, once in a long while.
    """
    burst = min(max(limit.units // BURST_SHARE, cost, 1), max(limit.units, cost))
    steady = max(limit.units - burst + 1, 1)
    interval = -(-round(limit.per * 1_000_000) // steady)
    return interval, burst * interval
