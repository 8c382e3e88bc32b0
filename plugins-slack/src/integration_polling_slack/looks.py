"""The choice of the channels that a scheduled run asks for new messages.

An account with few channels asks all of them. With more channels than the calls of a run, those
come first in which something is likely to have happened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from math import inf, isfinite

from pydantic import BaseModel

LOOKS = "looks"
"""The partition of the state."""

EVENTS = "events"
"""The partition of the state that has the time of the latest event."""

SHARE = 0.9
"""The share of the calls for messages that a run may plan. The rest reads further pages."""

DISTRIBUTED_SHARE = 0.5
"""The same for a distributed app. The other calls are left to the backfill."""

EVENTS_SHARE = 0.2
"""The same while events name the channels to ask. The run of an event waits for the end of a poll,
and both use the same calls."""

EVENTS_LAST = timedelta(minutes=30)
"""The time for which an event shows that events arrive. Without a later one, polls ask more."""

LONG_SECONDS = 600
"""The time after a run of hints for the complete account in which the next ones are short.

The engine repeats a run of hints that found nothing, after 5 and 30 seconds.
"""

MIN_MINUTES = 3
"""The minimum number of minutes for whose calls a run plans, however short the interval is."""

MAX_MINUTES = 60

OFTEN, SELDOM = 60, 12 * 60
"""The seconds between two looks at a very busy and at a quiet channel, with enough calls."""

LOOKS_PER_AGE = 24
"""A channel whose newest message is a day old is due every hour, up to these bounds."""

MAX_PLANNED = 10_000
"""The maximum number of channels whose activity is remembered."""

EASING = 0.98
"""The factor by which the longest pauses of the past count less in each run."""

BOUNDS = (2, 3, 5, 7, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720, 1_440, 2_880)
"""The bounds to show, in minutes. Few different ones change the rows of channels seldom."""


class Events(BaseModel):
    """The time of the latest event of the app that named a part of the account."""

    at: datetime


class Looks(BaseModel):
    """The last looks, in Unix seconds.

    Attributes:
      at: The time of the last plan; 0 before the first.
      asked: The time of the last look, by channel.
      newest: The time of the newest message, by channel.
      last: The channels of the last plan.
      cycle: The seconds between two plans: the longest of the last ones.
      long_at: The time of the last run of hints for the complete account that was not short.
      pressure: The urgency at which plans have a channel: the greatest of the last plans.
    """

    at: int = 0
    asked: dict[str, int] = {}
    newest: dict[str, int] = {}
    last: list[str] = []
    cycle: float = 0.0
    pressure: float = 0.0
    long_at: int = 0

    def fresh_within(self, id: str) -> int | None:
        """Return the minutes within which polls find a new message of a channel; None if unknown.

        The channel becomes due, the next plan has it, and the run reaches it.
        """
        if not self.cycle or id not in self.asked:
            return None
        minutes = (self.pressure * _pause(self.at, self.newest.get(id, 0)) + 2 * self.cycle) / 60
        return next((bound for bound in BOUNDS if minutes <= bound), BOUNDS[-1])


def capacity(before: Looks, now: datetime, calls: int, *, is_distributed: bool) -> int:
    """Return the number of channels that a run can look at.

    A run may take as long as the pause before it. Otherwise each run would be longer than the last.

    Args:
      before: The looks before this run.
      now: The present time.
      calls: The calls a minute that Slack allows.
      is_distributed: True for a distributed app.
    """
    pause = min(max(_minutes(before, now) - len(before.last) / calls, MIN_MINUTES), MAX_MINUTES)
    return max(int(calls * (DISTRIBUTED_SHARE if is_distributed else SHARE) * pause), 1)


def capacity_beside_events(before: Looks, now: datetime, calls: int) -> int:
    """Return the number of channels that a run can look at, while events name the busy ones.

    The run needs no more than half of the calls of a minute, so it ends within moments.
    """
    return max(min(int(calls * EVENTS_SHARE * max(_minutes(before, now), 1)), calls // 2), 1)


def _minutes(before: Looks, now: datetime) -> float:
    """Return the minutes since the last plan; 0 before the first."""
    return (now.timestamp() - before.at) / 60 if before.at else 0.0


def _pause(time: float, newest: int) -> float:
    """Return the seconds between two looks that the activity of a channel calls for."""
    return min(max((time - newest) / LOOKS_PER_AGE, OFTEN), SELDOM)


def plan(
    ids: Sequence[str],
    before: Looks,
    now: datetime,
    most: int,
    newest: Callable[[str], int],
) -> Looks:
    """Return the looks with the channels of this run as `last`: the most urgent ones, in order.

    A channel without a look comes first. Otherwise, its urgency is the time since its last look,
    relative to the time between two looks that its activity calls for.

    Args:
      ids: The channels.
      before: The looks before this run.
      now: The present time.
      most: The number of channels to look at.
      newest: Returns the time of the newest message of a channel, in Unix seconds.
    """
    time, known = int(now.timestamp()), set(ids)
    active = {id: before.newest[id] for id in ids if id in before.newest}
    active |= {id: newest(id) for id in before.last if id in known}

    def urgency(id: str) -> float:
        if id not in before.asked:
            return inf
        return (time - before.asked[id]) / _pause(time, active.get(id, 0))

    last = sorted(ids, key=urgency, reverse=True)[:most]
    asked = {id: before.asked[id] for id in ids if id in before.asked} | dict.fromkeys(last, time)
    cycle = max(time - before.at if before.at else 0.0, before.cycle * EASING)
    # The first one is the urgency of all channels if they wait equally.
    equal = cycle / most * sum(1 / _pause(time, active.get(id, 0)) for id in ids)
    here = urgency(last[-1]) if len(ids) > most else 0.0
    pressure = max(equal, here if isfinite(here) else 0.0, before.pressure * EASING)
    return Looks(at=time, asked=asked, newest=active, last=last, cycle=cycle, pressure=pressure)
