"""Rate limits of the fleet: one budget in Redis for all workers, timed by the clock of Redis.

The algorithm is GCRA (the generic cell rate algorithm). A field of one hash holds the theoretical
arrival time of a budget ("tat", in microseconds): the moment until which the budget is spent. A
task may start if that moment is at most a tolerance ahead of now. Its own cost does not matter, so
that light tasks do not starve heavy ones. Its cost then moves the moment forward.

No window of `per` seconds may exceed `units`. Therefore the steady rate is lowered by the units
that the burst and the last, heaviest task may add. All users of a limit must agree on its heaviest
cost.

If Redis has lost or evicted the budgets, each starts as spent as it may have been, so the fleet is
slow rather than over the limit. A mark in the hash distinguishes lost budgets from unused ones.

A replica that is promoted may lack the last second, and so may a server that was restarted. Both
change the id under which Redis replicates its data. The hash has the id, and each new connection
compares them. If they differ, all budgets start as spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import redis

from core.integration.limits import Rate

BURST_SHARE = 20
"""The units of a limit divided by this number are its burst."""

_ARRIVAL_TIME = """
-- KEYS: the hash, then the key of each budget in the version before. The hash has the mark under an
--   empty name, and the theoretical arrival time of each budget. It never expires, so an eviction
--   deletes all of it with the mark, and no budget alone.
-- Interval and tolerance are in microseconds.
local function arrival_time(name, old, mark, now, interval, tolerance, heaviest)
    local tat = tonumber(redis.call('HGET', KEYS[1], name))
    if not tat then
        tat = now
        if tonumber(mark) > 0 then tat = tonumber(mark) + tolerance + heaviest * interval end
    end
    -- Workers of the version before, during a rolling upgrade.
    local theirs = tonumber(redis.call('GET', old))
    if theirs and theirs > tat then tat = theirs end
    if tat < now then tat = now end
    return tat
end
local mark = redis.call('HGET', KEYS[1], '')
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""

TAKE_UNITS = (
    _ARRIVAL_TIME
    + """
-- ARGV: take (1) or force (2); then for each budget: name, interval and tolerance in microseconds,
--   heaviest cost, units.
-- Returns {-1} if the mark is missing, otherwise {wait in microseconds, number of the budget that
--   requires the longest wait}.
if not mark then return {-1, 0} end
local wait, which = 0, 0
local tats = {}
for i = 2, #KEYS do
    local at = 2 + (i - 2) * 5
    local interval, tolerance = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local heaviest = tonumber(ARGV[at + 3])
    local tat = arrival_time(ARGV[at], KEYS[i], mark, now, interval, tolerance, heaviest)
    local over = tat - tolerance - now
    if over > wait then wait, which = over, i - 1 end
    tats[i] = tat + tonumber(ARGV[at + 4]) * interval
end
if ARGV[1] == '2' or wait <= 0 then
    for i = 2, #KEYS do
        local tat = string.format('%.0f', tats[i])
        redis.call('HSET', KEYS[1], ARGV[2 + (i - 2) * 5], tat)
        redis.call('SET', KEYS[i], tat, 'PX', math.ceil((tats[i] - now) / 1000) + 1000)
    end
end
return {wait > 0 and math.ceil(wait) or 0, which}
"""
)

UNITS_LEFT = (
    _ARRIVAL_TIME
    + """
-- ARGV: name, interval, tolerance and heaviest cost of each budget.
-- Returns the units that each budget has left.
local left = {}
for i = 2, #KEYS do
    local at = 1 + (i - 2) * 4
    local interval, tolerance = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local heaviest = tonumber(ARGV[at + 3])
    local tat = arrival_time(ARGV[at], KEYS[i], mark or '0', now, interval, tolerance, heaviest)
    local room = now + tolerance - tat
    left[i - 1] = room < 0 and 0 or math.floor(room / interval) + heaviest
end
return left
"""
)

DELETE_FULL = """
-- KEYS: the hash. ARGV: names of budgets. Deletes those that are full again.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for _, name in ipairs(ARGV) do
    local tat = tonumber(redis.call('HGET', KEYS[1], name))
    if tat and tat <= now and name ~= '' and name ~= '@data' then
        redis.call('HDEL', KEYS[1], name)
    end
end
"""

COMPARE_DATA = """
-- KEYS: the hash. Deletes all budgets, and sets the mark to now, if the server has other data than
-- the one that counted. The keys of the version before keep the debts.
local info = redis.call('INFO', 'replication')
local id = string.match(info, 'master_replid:(%w+)')
if not id or string.find(info, 'role:slave') then return 0 end
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local known = redis.call('HGET', KEYS[1], '@data')
if known == id then return 0 end
if known then
    local time = redis.call('TIME')
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], '', string.format('%.0f', time[1] * 1000000 + time[2]))
end
redis.call('HSET', KEYS[1], '@data', id)
return 1
"""

MAX_NAMES_PER_CALL = 1_000
"""The number of budgets that one call of a script examines."""

TAKE, FORCE = 1, 2


class UnitRequest(NamedTuple):
    """A request for units of one budget.

    Args:
      key: The key of the limit, from `core.limits.keys.limit_key`.
      units: Number of units to take.
      heaviest: The most units that one task takes from this limit.
    """

    key: str
    limit: Rate
    units: int
    heaviest: int = 1


@dataclass(frozen=True, slots=True)
class Exhausted:
    """An exhausted budget.

    Attributes:
      index: The index of its request.
      seconds: Seconds until a task may start.
    """

    index: int
    seconds: float


class Budgets:
    """The budgets of all rate limits.

    Args:
      client: A Redis client.
      key: Adds the namespace of this fleet to a name.
      first_use: Called if the mark is missing. It returns True if this ledger has never counted a
        budget.
      run_first: Lets each new connection run a script with a key, if its server has other data.
    """

    def __init__(
        self,
        client: redis.Redis,
        key: Callable[[str], str],
        first_use: Callable[[], bool],
        run_first: Callable[[str, str], None],
    ) -> None:
        self._client = client
        self._key = key
        self._first_use = first_use
        self._take_units = client.register_script(TAKE_UNITS)
        self._units_left = client.register_script(UNITS_LEFT)
        self._delete_full = client.register_script(DELETE_FULL)
        self._compare_data = client.register_script(COMPARE_DATA)
        run_first(COMPARE_DATA, key("rates"))

    def take(self, requests: Sequence[UnitRequest]) -> Exhausted | None:
        """Take the units of all requests; if one budget is exhausted, take none and return it."""
        return self._run(TAKE, requests)

    def left(self, requests: Sequence[UnitRequest]) -> dict[str, int]:
        """Return the units that each budget has left, by key, without taking any."""
        if not requests:
            return {}
        arguments: list[Any] = []
        for request in requests:
            interval, tolerance = gcra(request.limit, request.heaviest)
            arguments += [request.key, interval, tolerance, request.heaviest]
        left = cast("list[int]", self._units_left(keys=self._keys(requests), args=arguments))
        return dict(zip([request.key for request in requests], left, strict=True))

    def charge(self, request: UnitRequest) -> None:
        """Take units even if none are left. The debt delays the next task."""
        self._run(FORCE, [request])

    def prune(self) -> None:
        """Delete budgets that are full again, so that only budgets in use are kept."""
        key, cursor = self._key("rates"), 0
        while True:
            cursor, found = self._client.hscan(key, cursor, count=MAX_NAMES_PER_CALL)
            names = list(found)
            for start in range(0, len(names), MAX_NAMES_PER_CALL):
                self._delete_full(keys=[key], args=names[start : start + MAX_NAMES_PER_CALL])
            if not cursor:
                return

    def _run(self, mode: int, requests: Sequence[UnitRequest]) -> Exhausted | None:
        if not requests:
            return None
        arguments: list[Any] = [mode]
        for request in requests:
            heaviest = max(request.heaviest, request.units if mode == TAKE else 1)
            interval, tolerance = gcra(request.limit, heaviest)
            arguments += [request.key, interval, tolerance, heaviest, request.units]
        while True:
            wait, which = cast(
                "list[int]", self._take_units(keys=self._keys(requests), args=arguments)
            )
            if wait >= 0:
                return Exhausted(which - 1, wait / 1_000_000) if wait else None
            self._mark()

    def _keys(self, requests: Sequence[UnitRequest]) -> list[str]:
        return [
            self._key("rates"),
            *(self._key(f"budget/{request.key}") for request in requests),
        ]

    def _mark(self) -> None:
        """Set the mark, because this Redis is new or was flushed.

        Unless this is the first use, missing budgets count as spent at this moment.
        """
        seconds, microseconds = self._client.time()
        lost = 0 if self._first_use() else seconds * 1_000_000 + microseconds
        self._client.hsetnx(self._key("rates"), "", lost)
        self._compare_data(keys=[self._key("rates")])


def gcra(limit: Rate, heaviest: int) -> tuple[int, int]:
    """Return the interval of one unit and the tolerance, in microseconds.

    With them, no window of `per` seconds exceeds `units`. In a window, tasks start until `(per +
    tolerance) / interval` units are spent, and the last task may cost `heaviest`. With `steady`
    intervals in a window, that is at most `steady + burst - 2 + heaviest` units.

    A task that costs more than the complete limit starts nevertheless. The budget is then in debt
    until the limit has restored those units.

    Args:
      limit: The rate limit.
      heaviest: The most units that one task takes from this limit.
    """
    # If one task costs nearly the complete limit, no burst is possible.
    burst = max(min(limit.units // BURST_SHARE, limit.units - heaviest + 1), 1)
    steady = max(limit.units - burst - heaviest + 2, 1)
    interval = -(-round(limit.per * 1_000_000) // steady)
    return interval, (burst - 1) * interval
