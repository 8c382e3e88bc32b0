"""Asks the fleet's budgets before a task runs, and puts it back for later if there is nothing left.

No thread waits.
"""

from __future__ import annotations

import random

from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage

from core.accounts.limits import weight
from core.errors import ServerUnavailable
from core.integration.limits import Rate
from core.ledger.outcomes import Block, Dispatch, Outcome
from core.middleware.closed import TaskMiddleware
from core.queues import UNAVAILABLE
from core.worker.budgets import Wanted
from core.worker.process import current

REDIS_AWAY_SECONDS = 5.0


class RateLimit(TaskMiddleware):
    """A task without a cost makes no call.

    A snooze counts no attempt; the dispatcher passes over the limit until it is open.
    """

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        process = current()
        spec = process.registry.get(dispatch.domain).task_specs.get(dispatch.type)
        if spec is None or not spec.cost:
            return
        try:
            loaded = process.accounts.get(dispatch.account_id, dispatch.account_version)
        except ServerUnavailable:
            raise
        # A plugin's validators and limits are in it, and may raise anything.
        except Exception:  # noqa: BLE001
            return  # the task itself fails with it, and its outcome is decided there
        wanted = [
            Wanted(loaded.key(limit), limit, units, loaded.heaviest(limit))
            for limit in loaded.limits
            if isinstance(limit, Rate) and (units := weight(limit, spec.cost)) > 0
        ]
        try:
            wait = process.budgets.take(wanted)
        except UNAVAILABLE:
            self._snooze(
                dispatch, REDIS_AWAY_SECONDS, "the budgets cannot be asked: Redis is away", None
            )
        if wait is not None:
            spent = wanted[wait.index]
            process.figures.count("budget_waits", domain=dispatch.domain, limit=spent.limit.name)
            process.figures.count(
                "budget_wait_seconds", wait.seconds, domain=dispatch.domain, limit=spent.limit.name
            )
            self._snooze(
                dispatch, wait.seconds, f"the limit {spent.limit.name!r} is used up", spent.key
            )

    def _snooze(self, dispatch: Dispatch, seconds: float, reason: str, key: str | None) -> None:
        block = Block(key, seconds, reason) if key is not None else None
        delay = seconds * (1 + random.random() / 10) + 0.01
        current().hand_over(
            Outcome(
                dispatch,
                state="ready",
                delay=delay,
                snooze=1,
                suspect=dispatch.suspect,
                reason=reason,
                block=block,
            )
        )
        raise SkipMessage(reason)
