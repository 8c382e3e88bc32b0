"""Middleware that fails closed, and only looks at dispatches of tasks."""

from __future__ import annotations

import logging
from typing import Any

from dramatiq import Broker
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from core.ledger.outcomes import Dispatch
from core.messages import TaskMessage
from core.worker.process import current

log = logging.getLogger(__name__)


def dispatch_of(message: MessageProxy) -> Dispatch | None:
    """The dispatch that a message names; None for messages of other actors."""
    return message.dispatch if isinstance(message, TaskMessage) else None


class TaskMiddleware(Middleware):
    """Call `before` and `after` for dispatches.

    An unexpected error in `before` skips the task, which is redelivered when its lease expires.
    """

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Before a task runs. Raise `SkipMessage` to keep it from running."""

    def after(
        self, dispatch: Dispatch, message: MessageProxy, exception: BaseException | None
    ) -> None:
        """After a task ran, or raised."""

    def skipped(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """After a task was kept from running, by this middleware or another."""

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        dispatch = dispatch_of(message)
        if dispatch is None:
            return
        try:
            self.before(dispatch, message)
        except SkipMessage:
            raise
        except Exception as error:
            log.exception(
                "%s failed before task %s; it is not run", type(self).__name__, dispatch.task_id
            )
            # Or its lease would be renewed for ever.
            current().held.release([dispatch.id], finished=False)
            raise SkipMessage(str(type(error).__name__)) from None

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        dispatch = dispatch_of(message)
        if dispatch is not None:
            self.after(dispatch, message, exception)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        dispatch = dispatch_of(message)
        if dispatch is not None:
            self.skipped(dispatch, message)
