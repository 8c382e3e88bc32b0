"""Tasks that must not start: their account was stopped, or their integration is paused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage

from core.errors import ServerUnavailable
from core.ledger.outcomes import Dispatch, Outcome
from core.middleware.base import TaskMiddleware
from core.results.decisions import INACTIVE_ACCOUNT_SECONDS
from core.results.signals import AccountStopped
from core.states import TaskState
from core.worker.admission import Admission
from core.worker.inflight import InflightTasks

WAIT_SECONDS = 10.0
"""Seconds that a thread waits for a recent look. A restart of PostgreSQL is often shorter."""


class AdmissionCheck(TaskMiddleware):
    """A middleware that starts a task only if a recent look allows it.

    The saver returns other tasks to `ready`, without counting an attempt. Without this middleware,
    prefetched tasks would start after their account was paused, disconnected or erased.

    Args:
      inflight: The in-flight tasks of the process.
      admission: The looks of the process.
      hand_over: Saves the outcome of a task that must not start.
      return_to_redis: Returns tasks to Redis while this process is cut off from PostgreSQL. Returns
        False if it cannot.
    """

    def __init__(
        self,
        inflight: InflightTasks,
        admission: Admission,
        hand_over: Callable[[Outcome], None],
        return_to_redis: Callable[[Sequence[Dispatch]], bool],
    ) -> None:
        super().__init__(inflight)
        self._admission = admission
        self._hand_over = hand_over
        self._return_to_redis = return_to_redis

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Wait for a recent look if there is none, and skip a task that must not start."""
        self._admission.wait(WAIT_SECONDS)
        try:
            self._admission.check(dispatch)
        except AccountStopped as error:
            self._release(dispatch, INACTIVE_ACCOUNT_SECONDS, str(error))
        except ServerUnavailable as error:
            if self._admission.cut_off and self._return_to_redis([dispatch]):
                raise SkipMessage("this process is cut off from PostgreSQL") from None
            self._release(dispatch, 0.0, str(error))
        except Exception:  # noqa: BLE001  loading an account calls a plugin's code
            return  # the task itself fails with this error, which decides its outcome

    def _release(self, dispatch: Dispatch, delay: float, reason: str) -> NoReturn:
        self._hand_over(
            Outcome(
                dispatch,
                state=TaskState.READY,
                delay=delay,
                suspect=dispatch.suspect,
                reason=reason,
            )
        )
        raise SkipMessage(reason)
