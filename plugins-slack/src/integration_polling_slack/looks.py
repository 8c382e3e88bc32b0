"""The choice of the channels that a scheduled run asks for new messages.

An account with few channels asks all of them. With more channels than the calls of a run, those
come first in which something is likely to have happened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pydantic import BaseModel

LOOKS = "looks"
"""The partition of the state."""

SHARE = 0.9
"""The share of the calls for messages that a run may plan. The rest reads further pages."""

DISTRIBUTED_SHARE = 0.5
"""The same for a distributed app. The other calls are left to the backfill."""

MIN_MINUTES = 3
"""The minimum number of minutes for whose calls a run plans, however short the interval is."""

MAX_MINUTES = 60

OFTEN, SELDOM = 60, 12 * 60
"""The seconds between two looks at a very busy and at a quiet channel, with enough calls."""

LOOKS_PER_AGE = 24
"""A channel whose newest message is a day old is due every hour, up to these bounds."""

MAX_PLANNED = 10_000
"""The maximum number of channels whose activity is remembered."""


class Looks(BaseModel):
    """The last looks, in Unix seconds.

    Attributes:
      at: The time of the last plan; 0 before the first.
      asked: The time of the last look, by channel.
      newest: The time of the newest message, by channel.
      last: The channels of the last plan.
    """

    at: int = 0
    asked: dict[str, int] = {}
    newest: dict[str, int] = {}
    last: list[str] = []


def capacity(before: Looks, now: datetime, calls: int, *, is_distributed: bool) -> int:
    """Return the number of channels that a run can look at.

    A run may take as long as the pause before it. Otherwise each run would be longer than the last.

    Args:
      before: The looks before this run.
      now: The present time.
      calls: The calls a minute that Slack allows.
      is_distributed: True for a distributed app.
    """
    since = (now.timestamp() - before.at) / 60 if before.at else 0.0
    pause = min(max(since - len(before.last) / calls, MIN_MINUTES), MAX_MINUTES)
    return max(int(calls * (DISTRIBUTED_SHARE if is_distributed else SHARE) * pause), 1)


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
    time = int(now.timestamp())
    active = {id: before.newest[id] for id in ids if id in before.newest}
    active |= {id: newest(id) for id in before.last if id in set(ids)}

    def urgency(id: str) -> float:
        if id not in before.asked:
            return float("inf")
        wanted = (time - active.get(id, 0)) / LOOKS_PER_AGE
        return (time - before.asked[id]) / min(max(wanted, OFTEN), SELDOM)

    last = sorted(ids, key=urgency, reverse=True)[:most]
    asked = {id: before.asked[id] for id in ids if id in before.asked} | dict.fromkeys(last, time)
    return Looks(at=time, asked=asked, newest=active, last=last)
