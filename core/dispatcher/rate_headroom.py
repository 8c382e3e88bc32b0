"""The headroom of rate limits.

A task whose budget is exhausted stays in the ledger instead of waiting in Redis.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence

from core.dispatcher.allocation import Rules
from core.integration.limits import Rate
from core.ledger.dispatching import Waiting
from core.ledger.outcomes import Dispatch
from core.limits.budgets import Budgets, UnitRequest, UnitsLeft

IN_FLIGHT_SECONDS = 0.05
"""The time for which units of dispatched tasks count here, in seconds.

After it, the workers have taken them from the budgets.
"""

MIN_WAIT_SECONDS = 0.01


class RateHeadroom:
    """The units left in budgets, less those of tasks dispatched in the last milliseconds.

    It only reads the budgets: the workers take the units.
    """

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._recent: deque[tuple[float, str, int]] = deque()

    def left(self, requests: Sequence[UnitRequest]) -> dict[str, UnitsLeft]:
        """Return the units left, by key."""
        if not requests:
            return {}
        now = time.monotonic()
        while self._recent and self._recent[0][0] < now - IN_FLIGHT_SECONDS:
            self._recent.popleft()
        left = self._budgets.left(requests)
        for _, key, units in self._recent:
            if key in left:
                left[key] = left[key].less(units)
        return left

    def note(
        self,
        rules: Rules,
        waiting: Sequence[Waiting],
        dispatches: Sequence[Dispatch],
        requests: Sequence[UnitRequest],
    ) -> None:
        """Remember the units that these dispatches will take."""
        if not requests:
            return
        accounts = {account.account: account for account in waiting}
        now = time.monotonic()
        for dispatch in dispatches:
            account = accounts[dispatch.account_id]
            for limit in rules.limits(account):
                units = rules.weight(limit, dispatch.type)
                if isinstance(limit, Rate) and units:
                    self._recent.append((now, rules.key(limit, account), units))


def retry_in(left: Iterable[UnitsLeft]) -> float:
    """Return the seconds until the first of these budgets has more units.

    Without a budget in use, the result is infinite.
    """
    waits = [units.more_in for units in left if units.more_in > 0]
    return max(min(waits), MIN_WAIT_SECONDS) if waits else float("inf")
