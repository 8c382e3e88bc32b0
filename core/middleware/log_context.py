"""Names the task in each line that is logged while it runs, and while its outcome is decided."""

from __future__ import annotations

from dramatiq.broker import MessageProxy
from structlog.contextvars import bind_contextvars, clear_contextvars

from core.ledger.outcomes import Dispatch
from core.middleware.base import TaskMiddleware


class LogContext(TaskMiddleware):
    """Bind domain, account, run and task to the log context of the thread.

    It is the first middleware, so that it clears the context last. Without it, log lines do not
    say which task they are about.

    Parameters:
      inflight: The in-flight tasks of the process.
    """

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
