"""Watch a run until it ends: its progress, the cause of its wait, and the error that stops it."""

from __future__ import annotations

import time
from uuid import UUID

from core.accounts.store import Account
from core.db.pool import DATABASE_UNAVAILABLE
from core.errors import PollingError
from core.service.accounts import waiting
from core.service.accounts.actions import require_running
from core.service.accounts.waiting import Wait
from core.service.backend import Backend
from core.service.runs import progress
from core.service.runs.progress import Progress
from core.states import RunState

REASONS_SECONDS = 1.0
"""Seconds between two reads of the cause of the wait."""

MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 5.0
"""Bounds of the pause between two refreshes, in seconds."""

PAUSE_PER_COST = 5
"""The pause after a refresh, as a multiple of the duration of the refresh.

Counting the tasks of a large run is slow. The pause bounds the load on the database.
"""


class RunWatcher:
    """A poller of one run, for one thread.

    Args:
      run: The run's id.

    Attributes:
      now: The run at the latest refresh.
      wait: The cause of its wait; None before the first read, and after its end.
      stopped: The error that a user must resolve before the run can continue, if any.
      is_away: True if PostgreSQL did not answer the latest refresh. The other attributes then hold
        the result of an earlier refresh.
    """

    now: Progress

    def __init__(self, backend: Backend, run: UUID) -> None:
        self._backend, self._run = backend, run
        self.wait: Wait | None = None
        self.stopped: PollingError | None = None
        self.is_away = False
        self._reasons_read_at = -REASONS_SECONDS
        self._cost = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the next refresh."""
        return min(max(MIN_PAUSE_SECONDS, PAUSE_PER_COST * self._cost), MAX_PAUSE_SECONDS)

    def refresh(self) -> str:
        """Read the run, and return its state.

        Raises:
          NotFound: The run does not exist.
          ServerUnavailable: PostgreSQL does not answer the first refresh. Later refreshes set
            `is_away` instead.
        """
        started = time.monotonic()
        try:
            self._refresh(started)
            self.is_away = False
        except DATABASE_UNAVAILABLE:
            if not hasattr(self, "now"):
                raise
            self.is_away = True
        self._cost = time.monotonic() - started
        return self.now.state

    def _refresh(self, started: float) -> None:
        with self._backend.database.connection() as conn:
            self.now = progress.progress(conn, self._run)
            if self.now.state != RunState.RUNNING:
                self.wait = None
            elif started - self._reasons_read_at >= REASONS_SECONDS:
                self._reasons_read_at = started
                account = progress.load_account(conn, self.now)
                self.stopped = _stopped(account)
                self.wait = waiting.of_run(self._backend, conn, account, self.now)


def _stopped(account: Account) -> PollingError | None:
    try:
        require_running(account)
    except PollingError as error:
        return error
    return None
