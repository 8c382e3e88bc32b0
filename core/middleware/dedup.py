"""Deduplication of deliveries within a process; the fence refuses all other duplicates."""

from __future__ import annotations

from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage

from core.ledger.outcomes import Dispatch
from core.middleware.base import TaskMiddleware
from core.middleware.time_limit import TimeLimit
from core.worker.inflight import InflightTasks


class Dedup(TaskMiddleware):
    """A middleware that starts each dispatch once in this process.

    Without this middleware, a message that one process receives twice would run the plugin twice.
    The fence would refuse the second result.

    Args:
      inflight: The in-flight tasks of the process.
      time_limit: Bounds the time for which the lease of a started task is renewed.
    """

    def __init__(self, inflight: InflightTasks, time_limit: TimeLimit) -> None:
        super().__init__(inflight)
        self._time_limit = time_limit

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Skip a dispatch that is already in flight or done."""
        if not self._inflight.start(dispatch, self._time_limit.renewal_seconds(dispatch)):
            message.options["duplicate"] = True
            raise SkipMessage("already in flight or finished in this process")
