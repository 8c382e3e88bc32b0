"""Rate limits of the fleet: one budget in Redis for all workers, timed by the clock of Redis.

A budget is a log of the units that tasks took. A task may start if the units of the log leave room
for its own. The log has 64 slots for each period: units that were taken in one slot leave it
together, when the period of the latest has passed. So its size is fixed, and it loses at most one
slot of the period.

A worker takes units shortly before its task starts. They are good for a fiftieth of the period:
after that, the worker takes them again. The log therefore counts them for a fiftieth longer than
the period, and no window of `per` seconds exceeds `units`, measured where requests leave.

A refused cost has a reservation. While it waits, tasks of other costs delay it by at most a
sixteenth of the period. The cost that has waited longest has the only reservation that counts, so
that no cost starves. This is EASY backfilling, as in schedulers of clusters.

A task that costs more than the complete limit starts when nothing is counted. Its units beyond the
limit are a debt, and so are charged units without room. Units that leave the log pay the debt
first.

If Redis has lost or evicted the budgets, each starts as spent, so the fleet is slow rather than
over the limit. A mark in the hash distinguishes lost budgets from unused ones. A replica that is
promoted may lack the last second, and so may a server that was restarted. Both change the id under
which Redis replicates its data. The hash has the id, and each new connection compares them. If they
differ, the rest of each limit counts as spent.

Workers of the version before count with GCRA, in one number for each budget. During a rolling
upgrade, both versions count each other's units: each writes that number when it takes units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import redis

from core.integration.limits import Limit, Rate
from core.limits.scripts import COMPARE_DATA, DELETE_FULL, TAKE_UNITS, UNITS_LEFT

SLOTS = 64
"""The number of slots of the log in one period."""

GRANT_SHARE = 50
MIN_GRANT_SECONDS = 0.02
"""Units that were taken are good for the period divided by this number, and for at least this time.

A thread may need some milliseconds to start its task.
"""

HOLD_SHARE = 8
HOLD_SECONDS = 0.25
"""A reservation ends this share of the period, and this time, after its units are free."""

SLACK_SHARE = 16
"""Tasks of other costs may delay a reserved task by the period divided by this number.

Without it, units would stay unused: if a task waits for the complete limit, no other could start.
"""

BURST_SHARE = 20
"""The units of a limit divided by this number are its burst in the version before."""

MAX_NAMES_PER_CALL = 1_000
"""The number of budgets that one call of a script examines."""

TAKE, FORCE, RESERVE = 1, 2, 3


class UnitRequest(NamedTuple):
    """A request for units of one budget.

    Args:
      key: The key of the limit, from `core.limits.keys.limit_key`.
      units: Number of units to take.
      heaviest: The most units that one task takes from this limit, for the version before.
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
      seconds: Seconds until the task may start.
      blocked_seconds: Seconds until a task of any cost may start; 0 if lighter tasks have room.
    """

    index: int
    seconds: float
    blocked_seconds: float


class UnitsLeft(NamedTuple):
    """The units that a budget has left.

    Args:
      units: The number of units.
      reserved_cost: The cost that has waited longest; 0 if none waits. Its tasks may take all
        units.
      other_units: The number of units that tasks of other costs may take.
      more_in: Seconds until more units are left; 0 if all are.
      taken: The number of units that tasks took so far, since the log began.
    """

    units: int
    reserved_cost: int
    other_units: int
    more_in: float
    taken: int = 0

    def less(self, units: int) -> UnitsLeft:
        """Return the rest after units were taken."""
        return self._replace(
            units=max(self.units - units, 0), other_units=max(self.other_units - units, 0)
        )


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

    def left(self, requests: Sequence[UnitRequest]) -> dict[str, UnitsLeft]:
        """Return the units that each budget has left, by key, without taking any."""
        if not requests:
            return {}
        arguments: list[Any] = []
        for request in requests:
            span, slot, *_ = times(request.limit)
            interval, _ = gcra(request.limit, request.heaviest)
            arguments += [request.key, request.limit.units, span, slot, interval]
        left = cast("list[int]", self._units_left(keys=self._keys(requests), args=arguments))
        return {
            request.key: UnitsLeft(units, cost, others, more / 1_000_000, taken)
            for request, units, cost, others, more, taken in zip(
                requests, *(left[field::5] for field in range(5)), strict=True
            )
        }

    def reserve(self, request: UnitRequest) -> None:
        """Reserve units that are not left yet, without taking any."""
        self._run(RESERVE, [request])

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
            arguments += [request.key, request.limit.units, *times(request.limit)]
            arguments += [*gcra(request.limit, heaviest), request.units]
        while True:
            wait, which, blocked = cast(
                "list[int]", self._take_units(keys=self._keys(requests), args=arguments)
            )
            if wait >= 0:
                return Exhausted(which - 1, wait / 1e6, blocked / 1e6) if wait else None
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
        with self._client.pipeline() as pipeline:
            pipeline.hsetnx(self._key("rates"), "", lost)
            pipeline.hsetnx(self._key("rates"), "@log", "at 0")
            pipeline.execute()
        self._compare_data(keys=[self._key("rates")])


def times(limit: Rate) -> tuple[int, int, int, int]:
    """Return four times in microseconds: span, slot, hold and slack.

    The log counts units for a span. Units that were taken in one slot leave it together. A
    reservation lasts for a hold after its units are free. Tasks of other costs may delay it by the
    slack.

    Args:
      limit: The rate limit.
    """
    period = max(round(limit.per * 1_000_000), 1)
    hold = period // HOLD_SHARE + round(HOLD_SECONDS * 1_000_000)
    span = period + math.ceil(grant_seconds(limit) * 1_000_000)
    return span, max(period // SLOTS, 1), hold, period // SLACK_SHARE


def grant_seconds(limit: Rate) -> float:
    """Return the seconds for which units that were taken are good."""
    return max(limit.per / GRANT_SHARE, MIN_GRANT_SECONDS)


def per_minute(limits: Iterable[Limit], cost: Mapping[str, float]) -> float | None:
    """Return the fastest pace of items with this cost, per minute; None if no limit bounds it.

    A limit counts units a little longer than its period: for a grant, and for a slot of the log.

    Args:
      limits: The limits of an account.
      cost: The units that one item takes, by the name of the limit.
    """
    paces = [
        60 * limit.units / cost[limit.name] / (limit.per * (1 + 1 / SLOTS) + grant_seconds(limit))
        for limit in limits
        if isinstance(limit, Rate) and cost.get(limit.name, 0) > 0
    ]
    return min(paces, default=None)


def gcra(limit: Rate, heaviest: int) -> tuple[int, int]:
    """Return the interval and the tolerance of the version before, in microseconds.

    It counts the moment until which a budget is spent. Each unit moves this moment by an interval,
    and a task may start if the moment is at most a tolerance ahead.

    Args:
      limit: The rate limit.
      heaviest: The most units that one task takes from this limit.
    """
    # If one task costs nearly the complete limit, no burst is possible.
    burst = max(min(limit.units // BURST_SHARE, limit.units - heaviest + 1), 1)
    steady = max(limit.units - burst - heaviest + 2, 1)
    interval = -(-round(limit.per * 1_000_000) // steady)
    return interval, (burst - 1) * interval
