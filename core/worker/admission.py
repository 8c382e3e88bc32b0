"""Admission: a task starts only if a recent look at the database allows it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from core.db.errors import describe
from core.db.pool import DATABASE_UNAVAILABLE, Database
from core.errors import ServerUnavailable
from core.integration.base import REREAD
from core.ledger import looks
from core.ledger.outcomes import Dispatch
from core.results.signals import AccountStopped
from core.states import AccountState
from core.worker.accounts import Accounts
from core.worker.inflight import InflightTasks

LOOK_SECONDS = 0.5
"""Seconds between two looks while the process holds work."""

STALE_SECONDS = 2.0
"""The age in seconds above which a look admits no task."""

LINGER_SECONDS = 2.0
"""Seconds without work after which the process rests, so that an idle fleet runs no statements."""

FORGET_SECONDS = 1800.0
"""The maximum seconds between two looks of which the second reads all changes.

The leader deletes changes after an hour.
"""

log = logging.getLogger(__name__)


class Admission:
    """Looks for changes in a thread of its own, and refuses tasks that they forbid.

    Each look applies the changes to this process. The next look records that in the database, where
    `core.ledger.looks.wait_until_seen` waits for it. After a rest, the first look only announces
    that the process holds work, and the second one admits tasks. A caller that saw the process at
    rest has committed before the second look.

    Args:
      url: The URL of PostgreSQL. The looks have a connection of their own, so that busy connections
        do not delay them.
      inflight: The in-flight tasks: the work that the process holds.
      accounts: The loaded accounts, of which each look invalidates those that have changed.
    """

    def __init__(self, url: str, inflight: InflightTasks, accounts: Accounts) -> None:
        self._database = Database(
            url, size=1, timeout=STALE_SECONDS, statement_seconds=STALE_SECONDS
        )
        self._inflight = inflight
        self._accounts = accounts
        self._looked = self._held = self._read = -float("inf")
        self._paused: frozenset[str] = frozenset()
        self._since: int | None = None
        self._applied: datetime | None = None
        self._known: set[int] = set()
        self._question: datetime | None = None
        self._answered: datetime | None = None
        self.on_lost: Callable[[Sequence[Dispatch]], None] = lambda _: None
        self.on_cut_off: Callable[[], None] = lambda: None
        self._announced = self._failed = self._releasing = False
        self._admits = threading.Condition()
        self._wanted = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="looks", daemon=True)

    def open(self, process: UUID) -> None:
        """Start looking, for the process of this id."""
        self._process = process
        self._thread.start()

    def close(self) -> None:
        """Stop looking. No task starts any more."""
        self._ended.set()
        self.release_waiters()
        self._thread.join(timeout=5)
        self._looked = -float("inf")
        self._database.close()

    def release_waiters(self) -> None:
        """Wake threads that wait for a look, so that the process can stop."""
        with self._admits:
            self._releasing = True
            self._admits.notify_all()
        self._wanted.set()

    @property
    def fresh(self) -> bool:
        """True if the last look is recent enough to admit a task."""
        return time.monotonic() - self._looked <= STALE_SECONDS

    @property
    def cut_off(self) -> bool:
        """True while this process cannot look: it receives no messages until a look succeeds."""
        return self._failed

    def doubt(self) -> None:
        """Look now, also without work: another connection of this process has failed."""
        self._held = time.monotonic()
        self._wanted.set()

    def wait(self, seconds: float) -> bool:
        """Wait for a recent look.

        Returns:
          False if there is none after `seconds`, or as soon as a look has failed.
        """
        if self.fresh:
            return True
        self._wanted.set()
        with self._admits:
            self._admits.wait_for(lambda: self.fresh or self._releasing or self._failed, seconds)
            return self.fresh

    def check(self, dispatch: Dispatch) -> None:
        """Raise an error if a task must not start. This reads memory, unless its account changed.

        A reread reads its account without the credentials, which no key has to decrypt.

        Raises:
          AccountStopped: Its account is not active, or its integration is paused.
          ServerUnavailable: The last look is too old.
          NotFound: The account was erased.
        """
        if not self.fresh:
            detail = "this process could not read recent changes of accounts"
            raise ServerUnavailable("postgres-unavailable", detail=detail)
        if dispatch.domain in self._paused:
            raise AccountStopped("the integration is paused")
        if dispatch.type == REREAD and not dispatch.probe:
            self._accounts.for_reread(dispatch.account_id)
        else:
            self._accounts.get(dispatch.account_id, dispatch.account_version)

    def _run(self) -> None:
        while not self._ended.is_set():
            pause: float | None = LOOK_SECONDS
            try:
                pause = self.step()
                self._failed = False
            # After any error, no task may start until a look succeeds.
            except Exception as error:  # noqa: BLE001
                if not self._failed:
                    log.warning(
                        "could not read changes of accounts; no task starts after %.0f s: %s",
                        STALE_SECONDS,
                        error if isinstance(error, DATABASE_UNAVAILABLE) else describe(error),
                    )
                self._fail()
            self._wanted.wait(pause)
            self._wanted.clear()

    def _fail(self) -> None:
        """Refuse all tasks, and let the process return those that no thread has started."""
        with self._admits:
            self._failed = True
            self._admits.notify_all()
        try:
            self.on_cut_off()
        except Exception:
            log.exception("could not return tasks to Redis; retrying after the next look")

    def step(self) -> float | None:
        """Look, or rest if the process holds no work and its last look succeeded.

        Returns:
          The number of seconds until the next step; None if it waits for work.
        """
        now = time.monotonic()
        if len(self._inflight) or self._failed:
            self._held = now
        if now - self._held > LINGER_SECONDS:
            return None if self._rest() else 0.0
        return 0.0 if self._look() else LOOK_SECONDS

    def _rest(self) -> bool:
        if not self._announced:
            return True
        # First refuse, then count: a task that was admitted before is in flight already.
        self._looked = -float("inf")
        if len(self._inflight):
            return False
        with self._database.connection() as conn:
            looks.rest(conn, self._process)
        self._announced = False
        return True

    def _look(self) -> bool:
        """Look once. Returns True if another look must follow immediately."""
        announced, began = self._announced, time.monotonic()
        asked, held = self._question, self._inflight.ids() if self._question else []
        with self._database.connection() as conn:
            look = looks.look(
                conn, self._process, self._since, self._applied, asked=asked, held=held
            )
        ended = time.monotonic()
        if not look.registered:  # the first heartbeat adds the row
            self._announced = False
            self._looked = self._read = -float("inf")
            return False
        self._apply(look, complete=not self._failed and began - self._read < FORGET_SECONDS)
        self._question = self._unanswered(look, asked, ended)
        self._read, self._announced = began, True
        if announced:
            with self._admits:
                self._looked = began
                self._admits.notify_all()
        ids = {id for id, _ in look.changes}
        fresh, self._known = ids - self._known, ids
        return bool(fresh) or not announced or self._question is not None

    def _unanswered(
        self, look: looks.Look, answered: datetime | None, ended: float
    ) -> datetime | None:
        """Return the leader's question that the next look has to answer; None if there is none.

        The leader asks after Redis has lost messages. If it has not waited for this process, it has
        sent the process's messages again. Tasks that no thread has started are left to others.
        """
        asked, settled = look.asked_at, look.settled_at
        if asked is None or asked == self._answered:
            return None
        late = settled is not None and settled >= asked
        if not late and asked != answered:
            return asked
        self._answered = asked
        if late and settled is not None:
            since = (look.at - settled).total_seconds() + time.monotonic() - ended
            self.on_lost(self._inflight.withdraw(since))
        return None

    def _apply(self, look: looks.Look, *, complete: bool) -> None:
        """Apply a look. Unless it is complete, load every account again before its next task."""
        changed = {account: state for (_, account), state in look.changes.items() if account}
        self._paused = look.paused
        self._accounts.invalidate(changed if complete else None)
        self._inflight.stop(
            {account for account, state in changed.items() if state != AccountState.ACTIVE}
        )
        self._since, self._applied = look.xmin, look.at
