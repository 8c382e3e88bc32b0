"""Suspects, of which a process runs one at a time, and the threads that tasks occupy."""

from __future__ import annotations

from collections.abc import Callable

from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage

from core.backoff import growing_pause
from core.db.pool import Database
from core.errors import ServerUnavailable
from core.ledger.leases import start_suspect
from core.ledger.outcomes import Dispatch, Outcome
from core.middleware.base import TaskMiddleware
from core.states import TaskState
from core.worker.inflight import InflightTasks

FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 1.0


class Leases(TaskMiddleware):
    """A middleware that runs a suspect only while no other suspect runs in this process.

    The heartbeat renews leases, with one statement every third of a lease for all in-flight tasks.
    Without this middleware, a suspect that kills its process would count no crash, and the tasks
    beside it would become suspects too.

    Args:
      inflight: The in-flight tasks of the process.
      database: The database in which the start of a suspect is committed before it runs.
      hand_over: Saves the outcome of a suspect that has to wait. The suspect becomes `ready` again,
        after at most `MAX_PAUSE_SECONDS`.
    """

    def __init__(
        self, inflight: InflightTasks, database: Database, hand_over: Callable[[Outcome], None]
    ) -> None:
        super().__init__(inflight)
        self._database = database
        self._hand_over = hand_over

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Commit the start of a suspect, or requeue it while another suspect runs."""
        if not dispatch.suspect:
            return
        if not self._inflight.enter_suspect_lane(dispatch):
            self._requeue(dispatch)
            raise SkipMessage("another suspect runs in this process")
        if not self._start(dispatch):
            self._inflight.release([dispatch])
            raise SkipMessage("this dispatch is no longer current")

    def _start(self, dispatch: Dispatch) -> bool:
        """Commit the start, again if a reply is lost: a start without its task is a crash."""
        try:
            with self._database.connection() as conn:
                return start_suspect(conn, dispatch.lease)
        except ServerUnavailable:
            with self._database.connection() as conn:
                return start_suspect(conn, dispatch.lease)

    def _requeue(self, dispatch: Dispatch) -> None:
        # Without jitter, all suspects would return together, and all but one would wait again.
        delay = growing_pause(
            FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, dispatch.dispatch_no - 2, jitter=0.5
        )
        self._hand_over(
            Outcome(
                dispatch,
                state=TaskState.READY,
                delay=delay,
                suspect=True,
                reason="suspect: waits until no other suspect runs in its process",
            )
        )

    def after(
        self, dispatch: Dispatch, message: MessageProxy, exception: BaseException | None
    ) -> None:
        """Record that the task has left its thread."""
        self._inflight.finish(dispatch)

    def skipped(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Record that the task has left its thread, unless it is a duplicate."""
        if not message.options.get("duplicate"):
            self._inflight.finish(dispatch)
