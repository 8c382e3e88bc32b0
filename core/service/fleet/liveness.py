"""The only definitions of a silent scheduler, and of a due or overdue account.

`core.ledger.processes.ALIVE` defines a live process, and `leadership.Status.leads` a leading
dispatcher. `polling doctor`, `/readyz`, `/metrics`, the overview and the list of accounts use these
definitions, and `docs/how-to/monitor.md` states their numbers.
"""

from __future__ import annotations

from uuid import UUID

from core.db.pool import Conn
from core.dispatcher.schedule import tick_seconds
from core.ledger.leadership import Status
from core.ledger.processes import ALIVE, IS_LIVE_WORKER
from core.settings import Settings
from core.states import AccountState

SILENT_TICKS = 1.75
"""Number of its own intervals without a tick after which the scheduler is silent."""

OVERDUE_INTERVALS = 0.75
"""The share of its own interval for which an overdue account has been due.

An account is never overdue before the scheduler would be silent. Both problems are detected before
two intervals have passed.
"""

IS_DUE = f"sync_status = '{AccountState.ACTIVE}' AND next_sync_at <= now()"
"""The condition of a due account. The index `user_integration_due` serves it."""

# The index `user_integration_due` serves the first condition on `next_sync_at`, which follows from
# the second one. If an account has an open live run, a claim or the request for the run has moved
# the account out of this range.
OVERDUE = f"""
FROM user_integration a
WHERE sync_status = '{AccountState.ACTIVE}'
  AND next_sync_at < now() - %(silent_after)s * interval '1 second'
  AND next_sync_at < now()
      - greatest({OVERDUE_INTERVALS} * poll_interval_minutes * interval '1 minute',
      %(silent_after)s * interval '1 second')
"""
"""The overdue accounts, as the FROM and WHERE of a query on `user_integration a`."""

_RUNNING_SECONDS = f"""
SELECT extract(epoch FROM clock_timestamp() - min(started_at))::float FROM process WHERE {ALIVE}
"""
_LIVE_WORKERS = f"SELECT id FROM process WHERE {IS_LIVE_WORKER}"


def silent_after_seconds(settings: Settings) -> float:
    """Return the seconds without a tick after which the scheduler is silent."""
    return SILENT_TICKS * tick_seconds(settings.cron_schedule)


def is_silent(status: Status, settings: Settings) -> bool:
    """Return True if the scheduler is silent."""
    return status.silent_seconds > silent_after_seconds(settings)


def is_starting(conn: Conn, status: Status, settings: Settings) -> bool:
    """Return True before the first tick of a new installation, as long as it is not late."""
    if status.last_tick_at is not None:
        return False
    ((seconds,),) = conn.execute(_RUNNING_SECONDS).fetchall()
    return seconds is not None and seconds <= silent_after_seconds(settings)


def overdue_params(settings: Settings) -> dict[str, float]:
    """Return the parameters of `OVERDUE`."""
    return {"silent_after": silent_after_seconds(settings)}


def live_workers(conn: Conn) -> set[UUID]:
    """Return the ids of all live worker processes, including draining ones."""
    return {id for (id,) in conn.execute(_LIVE_WORKERS)}
