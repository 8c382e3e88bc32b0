"""Shares of threads: the last threads of a group of processes serve users that hold none."""

from __future__ import annotations

import random
from collections.abc import Callable

from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage

from core.errors import NotFound
from core.ledger.outcomes import Dispatch, Outcome
from core.middleware.base import TaskMiddleware
from core.states import TaskState
from core.worker.accounts import Accounts
from core.worker.inflight import InflightTasks
from core.worker.reserve import Reserve

AGAIN_SECONDS = 0.2
"""Seconds after which the dispatcher may send a refused task again.

It knows by then that the user holds its share with slow tasks, and sends no more than can run.
"""


class Shares(TaskMiddleware):
    """A middleware that leaves the reserved threads of this process to users that hold none.

    The dispatcher divides the places of the window, but it cannot know which tasks are slow, and
    running tasks are not preempted. Without this middleware, one user with slow tasks would hold
    all threads.

    Args:
      inflight: The in-flight tasks of the process.
      accounts: The accounts, with their owners.
      reserve: The reserved threads of the process.
      hand_over: Saves the outcome of a refused task: it is `ready` again, without an attempt.
    """

    def __init__(
        self,
        inflight: InflightTasks,
        accounts: Accounts,
        reserve: Reserve,
        hand_over: Callable[[Outcome], None],
    ) -> None:
        super().__init__(inflight)
        self._accounts = accounts
        self._reserve = reserve
        self._hand_over = hand_over

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Keep a thread for the task, or return the task and leave the thread to others."""
        try:
            user = self._accounts.owner(dispatch.account_id)
        except NotFound:
            return  # the task itself fails with this error, which decides its outcome
        threads, kept = self._reserve.threads, self._reserve.kept
        if self._inflight.take_share(dispatch, user, threads, kept):
            return
        reason = "the user's tasks hold all threads that one user may hold"
        self._hand_over(
            Outcome(
                dispatch,
                state=TaskState.READY,
                delay=random.uniform(AGAIN_SECONDS, 2 * AGAIN_SECONDS),
                suspect=dispatch.suspect,
                reason=reason,
            )
        )
        raise SkipMessage(reason)
