"""Name the task in every line that is logged while it runs, and while its outcome is decided."""

from __future__ import annotations

from dramatiq.broker import MessageProxy
from structlog.contextvars import bind_contextvars, clear_contextvars

from core.ledger.outcomes import Dispatch
from core.middleware.closed import TaskMiddleware


class LogContext(TaskMiddleware):
    """The first of all, so that it is the last to let go."""

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        bind_contextvars(
            domain=dispatch.domain,
            account=dispatch.account_id,
            run=dispatch.run_id,
            task=dispatch.task_id,
        )

    def after(
        self, dispatch: Dispatch, message: MessageProxy, exception: BaseException | None
    ) -> None:
        clear_contextvars()

    def skipped(self, dispatch: Dispatch, message: MessageProxy) -> None:
        clear_contextvars()
