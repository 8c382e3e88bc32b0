"""The log context of a task: each line that is logged while it runs names the task.

It also names the account whose secrets are removed from these lines; see `core.log_redaction`.
"""

from __future__ import annotations

from dramatiq.broker import MessageProxy
from structlog.contextvars import bind_contextvars, clear_contextvars

from core.known_secrets import KNOWN
from core.ledger.outcomes import Dispatch
from core.middleware.base import TaskMiddleware


class LogContext(TaskMiddleware):
    """A middleware that binds domain, account, run and task to the log context of the thread.

    It is the first middleware around tasks, so that it clears the context last. Without it, log
    lines would not name their task.

    Args:
      inflight: The in-flight tasks of the process.
    """

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Bind the names of the task."""
        KNOWN.enter(dispatch.account_id)
        bind_contextvars(
            domain=dispatch.domain,
            account=dispatch.account_id,
            run=dispatch.run_id,
            task=dispatch.task_id,
        )

    def after(
        self, dispatch: Dispatch, message: MessageProxy, exception: BaseException | None
    ) -> None:
        """Clear the context."""
        KNOWN.leave()
        clear_contextvars()

    def skipped(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Clear the context."""
        KNOWN.leave()
        clear_contextvars()
