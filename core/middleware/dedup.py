"""Refuses a dispatch that this process holds or has finished already; the fence refuses the
rest.
"""

from __future__ import annotations

from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage

from core.ledger.outcomes import Dispatch
from core.middleware.base import TaskMiddleware
from core.middleware.time_limit import time_limit_of
from core.worker.process import current

GRACE_SECONDS = 30.0
"""How long past its time limit a task's lease is renewed: the time its thread has to come back."""


class Dedup(TaskMiddleware):
    """Without it, a message delivered twice to one process would run the plugin twice; its
    second result would be dropped.
    """

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        if not current().inflight.start(dispatch, time_limit_of(dispatch) + GRACE_SECONDS):
            message.options["duplicate"] = True
            raise SkipMessage("held or finished here already")
