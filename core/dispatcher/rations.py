"""Rations of scarce rate limits: which tasks may take the units that are left.

Users come first: the user that used least of a shared limit in its latest period is next. Then come
the accounts of this user, in the same way, and then the lanes of the account. Live tasks are
preferred, but the backfill has a share of the units while both wait. Within a lane, the order is
that of priority and age.

A task that does not fit gets a reservation, and lighter tasks take units that do not delay it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from core.dispatcher.allocation import PLENTY, Rules
from core.dispatcher.rate_use import LimitUse
from core.integration.limits import Rate
from core.ledger.dispatching import Candidate, TaskPortion, Waiting
from core.limits.budgets import UnitRequest, UnitsLeft
from core.states import Lane


@dataclass(slots=True)
class _Budget:
    """What is left of one limit in this round.

    Attributes:
      pace_left: The units that the backfill may use now; its last task may cost more.
    """

    limit: Rate
    left: UnitsLeft
    use: LimitUse
    pace_left: float

    def cost(self, units: int) -> int:
        """Return the units that a task needs. One that costs more than the limit needs all."""
        return min(units, self.limit.units)

    def fits(self, units: int, lane: str) -> bool:
        """Return True if a task may take these units now."""
        cost = self.cost(units)
        own = cost == self.left.reserved_cost
        return cost <= (self.left.units if own else self.left.other_units) and (
            lane != Lane.BACKFILL or self.pace_left > 0
        )

    def must_reserve(self, units: int) -> bool:
        """Return True if a task waits for units, and others could take those that are left."""
        return 0 < self.left.units < self.cost(units) and not self.left.reserved_cost

    def reserve(self, units: int) -> None:
        """Leave the units that are left to a task that does not fit, until the next round."""
        self.left = self.left._replace(reserved_cost=self.cost(units), other_units=0)

    def take(self, units: int, lane: str) -> None:
        """Take the units of a task."""
        if self.cost(units) == self.left.reserved_cost:
            self.left = self.left._replace(reserved_cost=0)
        self.left = self.left.less(units)
        if lane == Lane.BACKFILL:
            self.pace_left -= units


@dataclass(slots=True)
class _Lane:
    """The candidates of one lane of an account, and the numbers that may be taken."""

    portion: TaskPortion
    tasks: list[Candidate]
    most: int
    cap: int
    ids: list[int]

    def may_take(self, task: Candidate) -> bool:
        """Return True if the places of the portion allow this task."""
        return task.type not in self.portion.capped_types or self.cap > 0

    def take(self, task: Candidate) -> None:
        """Take a task."""
        self.tasks.remove(task)
        self.ids.append(task.id)
        self.most -= 1
        self.cap -= task.type in self.portion.capped_types

    def taken(self) -> TaskPortion:
        """Return the portion with the chosen tasks instead of its metered types."""
        portion = self.portion
        metered = set(portion.metered_types)
        return replace(
            portion,
            ids=self.ids,
            capped_types=[type for type in portion.capped_types if type not in metered],
            cap=max(self.cap, 0),
            without_types=sorted({*portion.without_types, *metered}),
        )


class Rationing:
    """One round of rations.

    Args:
      rules: The costs and limits of the domain.
      uses: The use of each limit in its latest period, by key.
      waiting: The accounts of the portions.
    """

    def __init__(
        self, rules: Rules, uses: Mapping[str, LimitUse], waiting: Sequence[Waiting]
    ) -> None:
        self._rules = rules
        self._users = {account.account: account.user for account in waiting}
        self._budgets: dict[str, _Budget] = {}
        self._limits: dict[str, dict[str, Rate]] = {}
        self._shared: dict[str, list[str]] = {}
        for account in waiting:
            rates = {
                key: limit
                for limit in rules.limits(account)
                if isinstance(limit, Rate)
                and (key := rules.key(limit, account)) in rules.available
                and key in uses
            }
            self._limits[account.account] = rates
            self._shared[account.account] = [
                key for key in rates if not key.startswith(f"account/{account.account}/")
            ]
            for key, limit in rates.items():
                if key not in self._budgets:
                    use = uses[key]
                    left = rules.available[key]
                    self._budgets[key] = _Budget(limit, left, use, rules.paces.get(key, inf))
        self._taken: dict[str, Counter[object]] = defaultdict(Counter)
        self._open: dict[str, dict[str, dict[str, _Lane]]] = {}
        self._scores: dict[object, float] = {}
        self.reservations: list[UnitRequest] = []

    def choose(
        self, portions: Sequence[TaskPortion], candidates: Iterable[Candidate]
    ) -> list[TaskPortion]:
        """Return the portions, with the chosen tasks of those that are metered."""
        lanes = self._lanes(portions, candidates)
        while self._open:
            account, name = self._next()
            lane = lanes[account, name]
            if not lane.most:
                # It has taken its places, and gets others in the next round, in milliseconds.
                self._wait_for(account)
            elif (task := self._first_that_fits(lane)) is None:
                self._close(account, name)
            else:
                lane.take(task)
                self._take(task)
                if not lane.tasks:
                    self._close(account, name)
        return [
            lanes[portion.account, portion.lane].taken() if portion.metered_types else portion
            for portion in portions
        ]

    def _lanes(
        self, portions: Sequence[TaskPortion], candidates: Iterable[Candidate]
    ) -> dict[tuple[str, str], _Lane]:
        """Open the lanes of metered portions, and take the units of the others."""
        lanes: dict[tuple[str, str], _Lane] = {}
        for portion in portions:
            if portion.metered_types:
                lane = _Lane(portion, [], portion.most, portion.cap, [])
                lanes[portion.account, portion.lane] = lane
                continue
            for key, limit in self._limits[portion.account].items():
                heaviest = max(self._rules.weight(limit, type) for type in self._rules.costs)
                budget = self._budgets[key]
                budget.left = budget.left.less(portion.most * heaviest)
        for task in candidates:
            lanes[task.account, task.lane].tasks.append(task)
        for (account, name), lane in lanes.items():
            if lane.tasks:
                user = self._users[account]
                self._open.setdefault(user, {}).setdefault(account, {})[name] = lane
        return lanes

    def _close(self, account: str, lane: str) -> None:
        """End the round of a lane."""
        user = self._users[account]
        accounts = self._open[user]
        del accounts[account][lane]
        if not accounts[account]:
            del accounts[account]
        if not accounts:
            del self._open[user]

    def _wait_for(self, account: str) -> None:
        """End the round of an account, and of all accounts that share scarce limits with it."""
        scarce = {
            key
            for key in self._shared[account]
            if self._budgets[key].left.units < PLENTY * self._budgets[key].limit.units
        }
        ending = [
            (other, lane)
            for accounts in self._open.values()
            for other, lanes in accounts.items()
            if other == account or scarce.intersection(self._shared[other])
            for lane in lanes
        ]
        for other, lane in ending:
            self._close(other, lane)

    def _next(self) -> tuple[str, str]:
        """Return the account and the lane that are next."""
        user = min(self._open, key=self._user_score)
        accounts = self._open[user]
        account = min(accounts, key=self._account_score)
        lanes = accounts[account]
        if len(lanes) == 1:
            return account, next(iter(lanes))
        return account, Lane.BACKFILL if self._backfill_is_next(account) else Lane.LIVE

    def _user_score(self, user: str) -> float:
        """Return the largest share that a user has used of a shared limit."""
        if user not in self._scores:
            keys = {key for account in self._open[user] for key in self._shared[account]}
            self._scores[user] = max(
                (self._share(key, self._budgets[key].use.users[user], user) for key in keys),
                default=0.0,
            )
        return self._scores[user]

    def _account_score(self, account: str) -> float:
        """Return the largest share that an account has used of a shared limit."""
        owner = ("account", account)
        if owner not in self._scores:
            self._scores[owner] = max(
                (
                    self._share(key, self._budgets[key].use.accounts[account], owner)
                    for key in self._shared[account]
                ),
                default=0.0,
            )
        return self._scores[owner]

    def _share(self, key: str, used: int, owner: object) -> float:
        return (used + self._taken[key][owner]) / self._budgets[key].limit.units

    def _backfill_is_next(self, account: str) -> bool:
        """Return True if the backfill has used less than its share of the tightest limit."""
        if not (keys := self._limits[account]):
            return False
        key = min(keys, key=lambda other: self._budgets[other].left.units / keys[other].units)
        used = {
            lane: self._budgets[key].use.lanes[account, lane] + self._taken[key][account, lane]
            for lane in (Lane.LIVE, Lane.BACKFILL)
        }
        share = keys[key].backfill_share
        return used[Lane.BACKFILL] < share * sum(used.values())

    def _costs(self, task: Candidate) -> dict[str, int]:
        """Return the units that a task takes of each limit, by key."""
        limits = self._limits[task.account]
        return {
            key: units
            for key, limit in limits.items()
            if (units := self._rules.weight(limit, task.type)) > 0
        }

    def _first_that_fits(self, lane: _Lane) -> Candidate | None:
        """Return the next task of a lane that may start, and reserve units for the first one.

        If the first one does not fit, the heaviest that fits is next: it leaves least units unused.
        """
        firsts: dict[str, Candidate] = {}
        for task in lane.tasks:
            if lane.may_take(task):
                firsts.setdefault(task.type, task)
        fitting: list[tuple[int, int, Candidate]] = []
        for place, task in enumerate(firsts.values()):
            costs = self._costs(task)
            if all(self._budgets[key].fits(units, task.lane) for key, units in costs.items()):
                if not place:
                    return task
                fitting.append((task.priority, sum(costs.values()), task))
            elif not fitting:
                self._reserve(costs)
        return max(fitting, key=lambda entry: entry[:2])[2] if fitting else None

    def _reserve(self, costs: Mapping[str, int]) -> None:
        """Reserve the units of a task that waits, if others could take those that are left."""
        for key, units in costs.items():
            budget = self._budgets[key]
            if budget.must_reserve(units):
                budget.reserve(units)
                self.reservations.append(UnitRequest(key, budget.limit, units, units))

    def _take(self, task: Candidate) -> None:
        """Count the units of a chosen task."""
        self._scores.pop(self._users[task.account], None)
        self._scores.pop(("account", task.account), None)
        for key, units in self._costs(task).items():
            self._budgets[key].take(units, task.lane)
            taken = self._taken[key]
            taken[self._users[task.account]] += units
            taken["account", task.account] += units
            taken[task.account, task.lane] += units
