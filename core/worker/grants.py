"""Units that a task has taken from its budgets, until the task starts.

The middleware takes them. An instance of the integration may then need seconds to connect. The
budgets count units a little longer than the period of their limit, and the task must start within
this time. Otherwise its request would leave when the budgets no longer count it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from core.ledger.outcomes import Dispatch
from core.limits.budgets import Budgets, Exhausted, UnitRequest, grant_seconds
from core.limits.keys import exhausted
from core.results.signals import UnitsSpent
from core.transport.queues import REDIS_UNAVAILABLE
from core.worker.inflight import InflightTasks

CANNOT_CHECK = "rate limits cannot be checked: Redis is unavailable"
REDIS_AWAY_SECONDS = 5.0
"""Seconds for which a task with a cost waits while Redis is unavailable."""

MAX_TRIES = 3
"""The number of times that a task takes its units again before it waits."""


def take(
    inflight: InflightTasks, budgets: Budgets, dispatch: Dispatch, requests: Sequence[UnitRequest]
) -> Exhausted | None:
    """Take the units of a running task.

    Returns:
      The exhausted budget; None if the task has its units.
    """
    if not requests:
        return None
    # Measured from before the call, so that the reply may be late.
    until = time.monotonic() + min(grant_seconds(request.limit) for request in requests)
    exhausted = budgets.take(requests)
    if exhausted is None:
        inflight.keep_grant(dispatch, (until, requests))
    return exhausted


def renew(inflight: InflightTasks, budgets: Budgets, dispatch: Dispatch) -> None:
    """Take the units of a running task again if they are too old.

    Raises:
      UnitsSpent: A budget has no units left, or Redis is too slow.
    """
    for _ in range(MAX_TRIES):
        grant = inflight.grant(dispatch)
        if grant is None or time.monotonic() <= grant[0]:
            return
        requests = grant[1]
        try:
            refused = take(inflight, budgets, dispatch, requests)
        except REDIS_UNAVAILABLE:
            raise UnitsSpent(CANNOT_CHECK, REDIS_AWAY_SECONDS) from None
        if refused is not None:
            name = requests[refused.index].limit.name
            raise UnitsSpent(exhausted(name), refused.seconds)
    raise UnitsSpent("the units of rate limits are too old when the task starts", 0.0)
