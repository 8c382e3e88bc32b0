"""The base class of the middleware around tasks, which fails closed."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from dramatiq import Broker, Worker
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from core.ledger.outcomes import Dispatch
from core.transport.messages import TaskMessage
from core.worker.inflight import InflightTasks

log = logging.getLogger(__name__)


def dispatch_of(message: MessageProxy) -> Dispatch | None:
    """Return the dispatch that a message names; None for messages of other actors."""
    return message.dispatch if isinstance(message, TaskMessage) else None


def give_up(worker: Worker, dispatches: Iterable[Dispatch]) -> None:
    """Free the places of messages that no thread of this worker will process."""
    for dispatch in dispatches:
        thread = worker.consumers.get(dispatch.domain)
        free = getattr(thread and thread.consumer, "give_up", None)
        if free is not None:
            free(dispatch.id)


HOOKS = {
    "before": "before_process_message",
    "after": "after_process_message",
    "skipped": "after_skip_message",
}
"""The hook of Dramatiq that calls each method of a `TaskMiddleware`."""


class TaskMiddleware(Middleware):
    """A middleware whose methods `before`, `after` and `skipped` act on tasks only.

    A subclass has the hooks of the methods that it defines.

    An unexpected error in `before` skips the task. Its lease then expires, and the leader requeues
    it. Dramatiq alone would log the error, and run the task.

    Args:
      inflight: The in-flight tasks of the process.
    """

    def __init__(self, inflight: InflightTasks) -> None:
        self._inflight = inflight

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for method, hook in HOOKS.items():
            is_defined = getattr(cls, method) is not getattr(TaskMiddleware, method)
            setattr(cls, hook, getattr(TaskMiddleware if is_defined else Middleware, hook))

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Act before a task runs. Raise `SkipMessage` to skip the task."""

    def after(
        self, dispatch: Dispatch, message: MessageProxy, exception: BaseException | None
    ) -> None:
        """Act after a task has returned or raised."""

    def skipped(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Act after this or another middleware has skipped a task."""

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Call `before` for a task, and skip the task if that fails."""
        dispatch = dispatch_of(message)
        if dispatch is None:
            return
        try:
            self.before(dispatch, message)
        except SkipMessage:
            raise
        except Exception as error:
            log.exception(
                "%s failed before task %s; the task is requeued when its lease expires",
                type(self).__name__,
                dispatch.task_id,
            )
            # While a task is in flight, its lease is renewed: without this line, forever.
            self._inflight.release([dispatch], done=False)
            raise SkipMessage(str(type(error).__name__)) from None

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Call `after` for a task."""
        dispatch = dispatch_of(message)
        if dispatch is not None:
            self.after(dispatch, message, exception)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Call `skipped` for a task."""
        dispatch = dispatch_of(message)
        if dispatch is not None:
            self.skipped(dispatch, message)
