"""Rate limits: a task takes its cost from the fleet's budgets before it runs, or is snoozed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NoReturn

from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage

from core.errors import ServerUnavailable
from core.integration.limits import Rate
from core.ledger.outcomes import Block, Dispatch, Outcome
from core.limits.budgets import Budgets, UnitRequest
from core.limits.keys import exhausted, weight
from core.metrics.counters import Counters
from core.middleware.base import TaskMiddleware
from core.plugins import Registry
from core.results.decisions import MAX_SNOOZE_SECONDS
from core.states import TaskState
from core.transport.queues import REDIS_UNAVAILABLE
from core.worker import grants
from core.worker.accounts import Accounts
from core.worker.inflight import InflightTasks

MAX_LATE_SECONDS = 0.1
"""Seconds over which tasks spread that wait for the same units."""


class RateLimit(TaskMiddleware):
    """A middleware that runs a task only if its account's `Rate` limits have room for its cost.

    A task without a cost makes no call to Redis. No thread waits: a task without room is snoozed,
    which does not count an attempt. If no task of any cost has room, the dispatcher skips the
    limit. Without this middleware, only the provider would enforce its limits.

    Args:
      inflight: The in-flight tasks of the process.
      registry: The integrations, with the costs of their task types.
      accounts: The accounts, with their limits.
      budgets: The fleet's budgets.
      counters: Counters for the number and the duration of waits.
      hand_over: Saves the outcome of a snoozed task.
    """

    def __init__(
        self,
        inflight: InflightTasks,
        registry: Registry,
        accounts: Accounts,
        budgets: Budgets,
        counters: Counters,
        hand_over: Callable[[Outcome], None],
    ) -> None:
        super().__init__(inflight)
        self._registry = registry
        self._accounts = accounts
        self._budgets = budgets
        self._counters = counters
        self._hand_over = hand_over

    def before(self, dispatch: Dispatch, message: MessageProxy) -> None:
        """Take the cost of the task, or snooze the task and skip it."""
        spec = self._registry.get(dispatch.domain).task_specs.get(dispatch.type)
        if spec is None or not spec.cost:
            return
        try:
            loaded = self._accounts.get(dispatch.account_id, dispatch.account_version)
        except ServerUnavailable:
            raise
        # Loading an account calls a plugin's validators and limits, which may raise anything.
        except Exception:  # noqa: BLE001
            return  # the task itself fails with this error, which decides its outcome
        requests = [
            UnitRequest(loaded.key(limit), limit, units, loaded.heaviest(limit))
            for limit in loaded.limits
            if isinstance(limit, Rate) and (units := weight(limit, spec.cost)) > 0
        ]
        try:
            wait = grants.take(self._inflight, self._budgets, dispatch, requests)
        except REDIS_UNAVAILABLE:
            self._snooze(dispatch, grants.REDIS_AWAY_SECONDS, grants.CANNOT_CHECK, None)
        if wait is not None:
            spent = requests[wait.index]
            self._counters.count("budget_waits", domain=dispatch.domain, limit=spent.limit.name)
            self._counters.count(
                "budget_wait_seconds", wait.seconds, domain=dispatch.domain, limit=spent.limit.name
            )
            reason = exhausted(spent.limit.name)
            blocked = min(wait.blocked_seconds, MAX_SNOOZE_SECONDS)
            # Lighter tasks may have room: then the limit is not blocked.
            block = Block(spent.key, blocked, reason) if blocked else None
            self._snooze(dispatch, wait.seconds, reason, block)

    def _snooze(
        self, dispatch: Dispatch, seconds: float, reason: str, block: Block | None
    ) -> NoReturn:
        seconds = min(seconds, MAX_SNOOZE_SECONDS)
        # Late tasks leave units unused, so they spread over a short time only.
        delay = seconds + 0.01 + random.random() * min(seconds / 10, MAX_LATE_SECONDS)
        self._hand_over(
            Outcome(
                dispatch,
                state=TaskState.READY,
                delay=delay,
                snooze=1,
                suspect=dispatch.suspect,
                reason=reason,
                block=block,
            )
        )
        raise SkipMessage(reason)
