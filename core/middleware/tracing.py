"""Tracing: a span for each run of a task, if traces are on."""

from __future__ import annotations

import threading
from typing import Any

from dramatiq.broker import MessageProxy

from core.errors import RateLimited, SkipItem
from core.ledger.outcomes import Dispatch
from core.middleware.base import TaskMiddleware
from core.observability import traces
from core.results.signals import AccountStopped, LeftToOthers
from core.worker.inflight import InflightTasks

NO_ERRORS = (RateLimited, SkipItem, AccountStopped, LeftToOthers)
"""The exceptions that postpone a task, or end it as its plugin intends."""


class Tracing(TaskMiddleware):
    """A middleware that opens a span for each run of a task.

    It is in the list of middleware only if traces are on, so it costs nothing if they are off.

    Args:
      inflight: The in-flight tasks of the process.
    """

    def __init__(self, inflight: InflightTasks) -> None:
        super().__init__(inflight)
        self._here = threading.local()

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Open the span."""
        opened = traces.task_span(f"{dispatch.domain} {dispatch.type}", attributes_of(dispatch))
        self._here.opened = opened
        if opened is not None:
            opened.__enter__()

    def after(
        self, dispatch: Dispatch, message: MessageProxy, exception: BaseException | None
    ) -> None:
        """Close the span, with the exception unless it is an intended one."""
        self._close(exception)

    def skipped(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Close the span."""
        self._close(None)

    def _close(self, exception: BaseException | None) -> None:
        opened, self._here.opened = getattr(self._here, "opened", None), None
        if opened is not None:
            opened.__exit__(None, None if isinstance(exception, NO_ERRORS) else exception, None)


def attributes_of(dispatch: Dispatch) -> dict[str, Any]:
    """Return the attributes of a task's span, without its payload."""
    return {
        "polling.domain": dispatch.domain,
        "polling.task.type": dispatch.type,
        "polling.task.id": dispatch.task_id,
        "polling.run.id": dispatch.run_id,
        "polling.account.id": dispatch.account_id,
        "polling.lane": dispatch.lane,
        "polling.attempt": dispatch.attempts + 1,
    }
