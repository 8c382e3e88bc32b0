"""Keep the leases of this process's tasks, and run a suspect alone, with a record."""

from __future__ import annotations

import random

from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage

from core.ledger.leases import start_suspect
from core.ledger.outcomes import Dispatch, Outcome
from core.middleware.closed import TaskMiddleware
from core.worker.process import current

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 1.0


class Leases(TaskMiddleware):
    """Register tasks for renewal by the process's heartbeat.

    One statement per third of a lease renews all tasks that the process holds.
    """

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        if not dispatch.suspect:
            return
        process = current()
        if not process.held.enter_suspect_lane(dispatch):
            # Spread out, or all who wait would come back at one moment and all but one of them be
            # put back again.
            pause = min(
                FIRST_PAUSE_SECONDS * 2 ** min(dispatch.dispatch_no - 2, 5), LONGEST_PAUSE_SECONDS
            )
            delay = random.uniform(pause / 2, pause)
            process.hand_over(
                Outcome(
                    dispatch, state="ready", delay=delay, suspect=True, reason="waits to run alone"
                )
            )
            raise SkipMessage("another suspect runs in this process")
        with process.database.connection() as conn:
            if not start_suspect(conn, dispatch.task_id, dispatch.dispatch_no):
                process.held.release([dispatch.id])
                raise SkipMessage("this dispatch is void")

    def after(
        self, dispatch: Dispatch, message: MessageProxy, exception: BaseException | None
    ) -> None:
        current().held.ran(dispatch)

    def skipped(self, dispatch: Dispatch, message: MessageProxy) -> None:
        if not message.options.get("duplicate"):
            current().held.ran(dispatch)
