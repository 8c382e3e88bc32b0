"""The only definitions of a process that is alive, a scheduler that is silent, and an account that
is due or overdue.

`polling doctor`, `/readyz`, `/metrics`, the overview and the list of accounts use these, and
`docs/how-to/monitor.md` states their numbers. A leading dispatcher is `leadership.Status.leads`.
"""

from __future__ import annotations

from uuid import UUID

from core.db.pool import Conn
from core.dispatcher.maintenance import tick_seconds
from core.ledger.leadership import Status
from core.ledger.processes import ALIVE, ALIVE_SECONDS
from core.settings import Settings
from core.states import AccountState, Lane, RunState

__all__ = [
    "ALIVE",
    "ALIVE_SECONDS",
    "DUE",
    "OVERDUE",
    "OVERDUE_INTERVALS",
    "SILENT_TICKS",
    "is_silent",
    "live_workers",
    "overdue_params",
    "silent_after_seconds",
]

SILENT_TICKS = 1.75
"""The scheduler is silent after this many of its own intervals without a tick."""

OVERDUE_INTERVALS = 0.75
"""An account is overdue once its next sync has been due for this share of its own interval, and for
no less than what makes the scheduler silent.

So both are noticed before two of their intervals have passed.
"""

DUE = f"sync_status = '{AccountState.ACTIVE}' AND next_sync_at <= clock_timestamp()"
"""An account whose next sync should start now; served by `user_integration_due`."""

# Served by `user_integration_due`. An account with an open live run is being polled, however long
# that takes.
OVERDUE = f"""
FROM user_integration a
WHERE sync_status = '{AccountState.ACTIVE}'
  AND next_sync_at < clock_timestamp()
      - greatest({OVERDUE_INTERVALS} * poll_interval_minutes * interval '1 minute',
      %(silent_after)s * interval '1 second')
  AND NOT EXISTS (SELECT FROM sync_run r WHERE r.user_integration_id = a.id
      AND r.lane = '{Lane.LIVE}' AND r.state = '{RunState.RUNNING}')
"""
"""The overdue accounts, as the FROM and WHERE of a query on `user_integration a`."""

_LIVE_WORKERS = f"SELECT id FROM process WHERE kind = 'worker' AND {ALIVE}"


def silent_after_seconds(settings: Settings) -> float:
    """Seconds without a tick after which the scheduler is silent."""
    return SILENT_TICKS * tick_seconds(settings.cron_schedule)


def is_silent(status: Status, settings: Settings) -> bool:
    """Whether the scheduler is silent."""
    return status.silent_seconds > silent_after_seconds(settings)


def overdue_params(settings: Settings) -> dict[str, float]:
    """The parameters of `OVERDUE`."""
    return {"silent_after": silent_after_seconds(settings)}


def live_workers(conn: Conn) -> set[UUID]:
    """The ids of all worker processes that are alive, draining ones included."""
    return {id for (id,) in conn.execute(_LIVE_WORKERS)}
