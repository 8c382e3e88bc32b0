"""Runs one suspect at a time and on record, and notes when the thread of a task is free."""

from __future__ import annotations

import random
from collections.abc import Callable

from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage

from core.db.pool import Database
from core.ledger.leases import start_suspect
from core.ledger.outcomes import Dispatch, Outcome
from core.middleware.base import TaskMiddleware
from core.states import TaskState
from core.worker.inflight import InflightTasks

FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 1.0


class Leases(TaskMiddleware):
    """Run a suspect only while no other suspect runs in this process.

    The heartbeat renews leases: one statement every third of a lease for all in-flight tasks.
    Without this middleware, a suspect that kills its process would count no crash, and the task
    beside it would be suspected as well.

    Parameters:
      inflight: The in-flight tasks of the process.
      database: Where the start of a suspect is committed before it runs.
      hand_over: Saves the outcome of a suspect that has to wait: `ready` again, after at most
        `MAX_PAUSE_SECONDS`.
    """

    def __init__(
        self, inflight: InflightTasks, database: Database, hand_over: Callable[[Outcome], None]
    ) -> None:
        super().__init__(inflight)
        self._database = database
        self._hand_over = hand_over

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        if not dispatch.suspect:
            return
        if not self._inflight.enter_suspect_lane(dispatch):
            self._requeue(dispatch)
            raise SkipMessage("another suspect runs in this process")
        with self._database.connection() as conn:
            if not start_suspect(conn, dispatch.task_id, dispatch.dispatch_no):
                self._inflight.release([dispatch.id])
                raise SkipMessage("this dispatch is no longer current")

    def _requeue(self, dispatch: Dispatch) -> None:
        # With jitter, or all suspects would return in one moment and all but one be requeued again.
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(dispatch.dispatch_no - 2, 5), MAX_PAUSE_SECONDS)
        delay = random.uniform(pause / 2, pause)
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
        self._inflight.finish(dispatch)

    def skipped(self, dispatch: Dispatch, message: MessageProxy) -> None:
        if not message.options.get("duplicate"):
            self._inflight.finish(dispatch)
