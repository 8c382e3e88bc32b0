"""The schedule by which `periodiq` sends `poll_due`: its gaps, and its missed ticks."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pendulum
from pendulum import DateTime
from periodiq import CronSpec, cron

FREQUENT_MINUTES = 5
"""The longest gap of a frequent schedule, in minutes."""


def tick_seconds(schedule: str) -> float:
    """Return the seconds between the next two ticks of a cron schedule."""
    spec = cron(schedule)
    first = spec.next_valid_date(pendulum.now())
    return float((spec.next_valid_date(first) - first).total_seconds())


def is_frequent(schedule: str) -> bool:
    """Return True if a cron schedule fires at least every `FREQUENT_MINUTES`, day and night.

    With such a schedule, the leader claims due accounts itself. Any other schedule may restrict
    polling to certain hours or days.
    """
    spec = cron(schedule)
    return _is_unrestricted(spec) and all(
        after - before <= FREQUENT_MINUTES
        for before, after in pairwise([*spec.minute, spec.minute[0] + 60])
    )


def _is_unrestricted(spec: CronSpec) -> bool:
    """Return True if a schedule fires in each hour of the year."""
    days = not spec.is_dom_restricted and not spec.is_dow_restricted
    return days and len(spec.hour) == 24 and len(spec.month) == 12


def missed_tick(schedule: str, silent: float) -> DateTime:
    """Return the first tick that a scheduler has missed. In the future: it has missed none.

    Args:
      schedule: A cron schedule.
      silent: Seconds since its latest tick. The clocks of two hosts differ, so a tick within half
        an interval after the latest one counts as that tick.
    """
    latest = pendulum.now() - timedelta(seconds=silent - tick_seconds(schedule) / 2)
    tick: DateTime = cron(schedule).next_valid_date(latest)
    return tick


def missed_seconds(schedule: str, silent: float) -> float:
    """Return the seconds since that tick; negative if the scheduler has missed none."""
    return float((pendulum.now() - missed_tick(schedule, silent)).total_seconds())


def next_tick(schedule: str) -> DateTime:
    """Return the next time at which a cron schedule fires."""
    tick: DateTime = cron(schedule).next_valid_date(pendulum.now())
    return tick
