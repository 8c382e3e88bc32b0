"""Watching a run until it ends: how far it is, what it waits for, and why it cannot end."""

from __future__ import annotations

import time
from uuid import UUID

from core.accounts.store import Account
from core.db.pool import DATABASE_UNAVAILABLE
from core.errors import PollingError
from core.service.accounts.actions import require_running
from core.service.backend import Backend
from core.service.runs import progress
from core.service.runs.progress import Blocker, Progress
from core.states import RunState

REASONS_SECONDS = 1.0
"""How often the watcher reads what the run waits for."""

MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 5.0

PAUSE_PER_COST = 5
"""The pause after a look is so many times as long as the look took: counting the tasks of a large
run takes a while, and must not be all that the database does.
"""


class RunWatcher:
    """Reads a run again and again; one thread uses it.

    Parameters:
      run: The run's id.

    Attributes:
      now: The run as the latest look found it.
      waits: What it waits for, the weightiest first; empty while it simply works.
      stopped: Why it cannot go on without a person, if so.
      is_away: Whether PostgreSQL did not answer the latest look; the rest is what an earlier one
        found.
    """

    now: Progress

    def __init__(self, backend: Backend, run: UUID) -> None:
        self._backend, self._run = backend, run
        self.waits: list[Blocker] = []
        self.stopped: PollingError | None = None
        self.is_away = False
        self._asked = -REASONS_SECONDS
        self._cost = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        return min(max(MIN_PAUSE_SECONDS, PAUSE_PER_COST * self._cost), MAX_PAUSE_SECONDS)

    def look(self) -> str:
        """Read the run again, and return its state.

        Raises:
          NotFound: There is no such run.
          ServerUnavailable: PostgreSQL does not answer the first look. Later looks tolerate that.
        """
        began = time.monotonic()
        try:
            self._look(began)
            self.is_away = False
        except DATABASE_UNAVAILABLE:
            if not hasattr(self, "now"):
                raise
            self.is_away = True
        self._cost = time.monotonic() - began
        return self.now.state

    def _look(self, began: float) -> None:
        with self._backend.database.connection() as conn:
            self.now = progress.progress(conn, self._run)
            if self.now.state != RunState.RUNNING:
                self.waits = []
            elif began - self._asked >= REASONS_SECONDS:
                self._asked = began
                account = progress.load_account(conn, self.now)
                self.stopped = _stopped(account)
                self.waits = progress.blockers(conn, account, self.now)


def _stopped(account: Account) -> PollingError | None:
    try:
        require_running(account)
    except PollingError as error:
        return error
    return None
