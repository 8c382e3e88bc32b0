"""Ages that a wrong clock cannot make: how long the leaders' monotonic clocks have run.

Each leader adds the seconds of its own monotonic clock to `monotonic_sample`, beside the time of
the database. If that clock steps a day ahead, every row seems a day older; then nothing may be
deleted or given up because of its age. What was written before the earliest time of the latest N
monotonic seconds is at least N seconds old, also if the clock has stepped since then.

Time in which no dispatcher leads is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from core.db.pool import Conn
from core.ledger.outcomes import Dispatch

SAMPLE_SECONDS = 300.0
"""Seconds between two samples; an age is judged late by at most twice that time."""

KEPT_SECONDS = 86_400.0
"""Seconds for which samples stay, beyond the longest age that the engine judges."""

ADD_SAMPLE = """
INSERT INTO monotonic_sample (watched, at, horizon)
SELECT coalesce(max(watched), 0) + %s, clock_timestamp(),
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint
FROM monotonic_sample
"""
PRUNE_SAMPLES = """
DELETE FROM monotonic_sample WHERE watched < (SELECT max(watched) FROM monotonic_sample) - %s
"""
# NULL while the samples cover less time. `monotonic_sample_watched` serves it.
OLD_ENOUGH = """
SELECT min(s.at) FROM monotonic_sample s,
    (SELECT min(watched) AS first, max(watched) AS last FROM monotonic_sample) all_samples
WHERE s.watched >= last - %(span)s AND first < last - %(span)s
"""

# The seconds since then; infinite while the samples cover less time.
KNOWN_SECONDS = f"""
SELECT coalesce(extract(epoch FROM clock_timestamp() - ({OLD_ENOUGH})), 'Infinity')::float
"""

Before = datetime | str
"""A time of the database, or `infinity`."""

OldEnough = Callable[[float], Before | None]
"""Returns the time before which a row is surely older than this many seconds; None if none is."""


def any_age(seconds: float) -> Before | None:  # noqa: ARG001  the signature of `OldEnough`
    """Trust the database's clock alone."""
    return "infinity"


def sample(conn: Conn, seconds: float, longest: float) -> None:
    """Record that the leader's monotonic clock has run.

    Args:
      conn: A connection in autocommit mode.
      seconds: The seconds since the leader's last sample; 0 for its first one.
      longest: The longest age in seconds that `old_enough` judges.
    """
    conn.execute(ADD_SAMPLE, (seconds,))
    conn.execute(PRUNE_SAMPLES, (longest + KEPT_SECONDS,))


def old_enough(conn: Conn, seconds: float) -> datetime | None:
    """Return the time before which a row is surely older than `seconds`; None if none is."""
    row = conn.execute(OLD_ENOUGH, {"span": seconds + SAMPLE_SECONDS}).fetchone()
    return row[0] if row else None


def trusted(conn: Conn, dispatches: list[Dispatch], seconds: float) -> list[Dispatch]:
    """Return dispatches that do not fail for `seconds` by a wrong clock.

    The worker gives up a task that has failed for so long. If only the database's clock says so, it
    has failed for a little less. Reads the database only if there is such a task.
    """
    if all(dispatch.failing_seconds < seconds for dispatch in dispatches):
        return dispatches
    ((known,),) = conn.execute(KNOWN_SECONDS, {"span": seconds + SAMPLE_SECONDS})
    return [
        dispatch
        if dispatch.failing_seconds < seconds or dispatch.failing_seconds >= known
        else replace(dispatch, failing_seconds=math.nextafter(seconds, 0.0))
        for dispatch in dispatches
    ]
