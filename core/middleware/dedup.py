"""Refuse a dispatch that this process holds or has finished; the fence refuses the rest."""

from __future__ import annotations

from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage

from core.ledger.outcomes import Dispatch
from core.middleware.closed import TaskMiddleware
from core.middleware.time_limit import time_limit_of
from core.worker.process import current

GRACE_SECONDS = 30.0
"""How long past its time limit a task's lease is renewed: the time its thread has to come back."""


class Dedup(TaskMiddleware):
    """Run a message once, even if it is delivered twice to one process.

    Without it, the plugin would run twice, and the fence would refuse the second result.
    """

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        if not current().held.begin(dispatch, time_limit_of(dispatch) + GRACE_SECONDS):
            message.options["duplicate"] = True
            raise SkipMessage("held or finished here already")
