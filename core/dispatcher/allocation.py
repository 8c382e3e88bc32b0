"""Allocation of free places in a domain's window to accounts.

It shares the places fairly among users, and the share of a user among its accounts. It prefers live
tasks to backfill, and respects limits.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from core.dispatcher.domain import WINDOW_SECONDS
from core.integration.base import REREAD, START
from core.integration.limits import Concurrency, Limit, Rate
from core.ledger.dispatching import Blocks, InFlight, OpenBreaker, TaskPortion, Waiting
from core.limits.budgets import UnitRequest, UnitsLeft
from core.limits.keys import account_key, from_json, limit_key, lowered, overridden, weight
from core.settings import LimitOverride
from core.states import Lane
from core.worker.reserve import needs_bound, reserved

AGED_SECONDS = 0.25
"""The age in seconds from which a queued task counts as slow: a thread probably runs it."""

PLENTY = 0.9
"""The share of a rate limit of which more is left if its units need not be divided yet."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The costs and limits that apply to a domain now.

    Attributes:
      domain: The name of the domain.
      costs: The costs of each task type, by limit name.
      overrides: The operator's figures, by limit name.
      blocks: The blocked limits, and the open breakers of the accounts.
      available: Units left in rate limits, by key. A rate limit without an entry bounds nothing
        here.
      paces: The units of rate limits that the backfill may use now, by key. A limit for which live
        tasks wait has no entry: shares bound its backfill.
      rivals: The number of waiting accounts that share a rate limit, by key.
    """

    domain: str
    costs: Mapping[str, Mapping[str, int]]
    overrides: Mapping[str, LimitOverride]
    blocks: Blocks = field(default_factory=Blocks)
    available: Mapping[str, UnitsLeft] = field(default_factory=dict)
    paces: Mapping[str, float] = field(default_factory=dict)
    rivals: Mapping[str, int] = field(default_factory=dict)

    def limits(self, account: InFlight | Waiting) -> list[Limit]:
        """Return the limits of an account, with the operator's overrides."""
        return lowered(overridden(from_json(account.limits), self.overrides), account.limits)

    def key(self, limit: Limit, account: InFlight | Waiting) -> str:
        """Return the key under which the fleet counts a limit of this account."""
        return limit_key(limit, domain=self.domain, account_id=account.account, group=account.group)

    def weight(self, limit: Limit, type: str) -> int:
        """Return the units of a limit that a task of this type takes."""
        return weight(limit, self.costs.get(type, {}))

    def rates(self, accounts: Iterable[Waiting]) -> list[UnitRequest]:
        """Return a request for each rate limit that tasks of these accounts use."""
        requests: dict[str, UnitRequest] = {}
        for account in accounts:
            for limit in self.limits(account):
                heaviest = max((self.weight(limit, type) for type in self.costs), default=0)
                if isinstance(limit, Rate) and heaviest:
                    requests[self.key(limit, account)] = UnitRequest(
                        self.key(limit, account), limit, 0, heaviest
                    )
        return list(requests.values())

    def rated(self, accounts: Iterable[Waiting]) -> list[tuple[str, Waiting]]:
        """Return each rate limit of these accounts, by key, with the account."""
        return [
            (self.key(limit, account), account)
            for account in accounts
            for limit in self.limits(account)
            if isinstance(limit, Rate)
        ]

    def types(self, limit: Limit) -> set[str] | None:
        """Return the task types that use a limit; None for a concurrency limit that all use."""
        touched = {type for type in self.costs if self.weight(limit, type) > 0}
        return None if isinstance(limit, Concurrency) and touched == set(self.costs) else touched


@dataclass(slots=True)
class Held:
    """The places that a user or an account holds.

    Attributes:
      tasks: The number of its queued tasks, without those that hang.
      aged: The number of tasks that were dispatched early enough for a thread to run them.
      backfill: The number of tasks of the backfill.
      rate: The number of tasks that were sent for it lately, per second. Default: infinite,
        so that the window bounds its places.
    """

    tasks: int = 0
    aged: int = 0
    backfill: int = 0
    rate: float = inf

    def add(self, flight: InFlight) -> None:
        """Count queued tasks."""
        tasks = flight.count - flight.hung
        self.tasks += tasks
        self.aged += flight.aged
        self.backfill += tasks if flight.lane == Lane.BACKFILL else 0


@dataclass(frozen=True, slots=True)
class Places:
    """The places that are shared: those of a window, and the threads behind it.

    A window is wider than its threads, so that no thread waits for a message. A holder has the
    places of its threads, and some more for the tasks that they end soon, by its rate. So quick
    tasks fill the window, and slow ones do not.

    Attributes:
      window: The number of places in the window.
      threads: The number of threads.
      processes: The number of processes with these threads. Default: one.
      bound: The number of places of one holder, beside its share. Default: no bound.
    """

    window: int
    threads: int
    processes: int = 1
    bound: float = inf

    def without_reserve(self) -> Places:
        """Return the places that one user may hold, even alone.

        Running tasks are not preempted. The last tenth of the threads serves users that hold none.
        Processes keep it, unless too many of them have one thread: then no user has more tasks than
        the other threads.
        """
        kept = reserved(self.threads)
        bound = self.threads - kept if needs_bound(self.threads, self.processes) else inf
        return replace(
            self,
            window=max(self.window - kept, 1),
            threads=max(self.threads - kept, 1),
            bound=bound,
        )

    def share(self, rivals: int, *, alone: bool) -> Places:
        """Return the share of one of several rivals.

        Args:
          rivals: The number of those that have ready tasks.
          alone: True if no other has tasks in the window either. Otherwise, each holds at most half
            of the window.
        """
        if alone:
            return self
        return replace(
            self,
            window=max(self.window // max(rivals, 2), 1),
            threads=max(self.threads // rivals, 1),
        )

    def most(self, held: Held) -> int:
        """Return the number of places that this share has for its holder."""
        quick = self.threads + held.rate * WINDOW_SECONDS
        return int(min(quick, self.window, self.bound))

    def is_slow(self, held: Held) -> bool:
        """Return True if the holder has used half of these threads for `AGED_SECONDS`."""
        return 2 * held.aged >= self.threads


def held_by_user(
    flying: Iterable[InFlight], rate: Callable[[str], float] = lambda _: inf
) -> dict[str, Held]:
    """Count the places that each user holds. `rate` returns the rate of a user."""
    held: dict[str, Held] = {}
    for flight in flying:
        if flight.user not in held:
            held[flight.user] = Held(rate=rate(flight.user))
        held[flight.user].add(flight)
    return held


def beyond_share(places: Places, held: Mapping[str, Held]) -> dict[str, int]:
    """Return by how many places users exceed their share, if their tasks are slow.

    Threads do not start these tasks soon, and messages of other users wait behind them.
    """
    share = places.without_reserve().share(len(held), alone=len(held) == 1)
    return {
        user: its.tasks - share.most(its)
        for user, its in held.items()
        if share.is_slow(its) and its.tasks > share.most(its)
    }


def full_users(places: Places, held: Mapping[str, Held], *, compete: bool) -> list[str]:
    """Return the users that hold all the places they may have.

    Args:
      places: The places of the domain.
      held: The places that users hold.
      compete: True to judge each user as one of two. Otherwise as if nobody else had work.
    """
    share = places.without_reserve().share(2 if compete else 1, alone=not compete)
    return [user for user, its in held.items() if its.tasks >= share.most(its)]


def allocate(
    free: int,
    places: Places,
    flying: Sequence[InFlight],
    waiting: Sequence[Waiting],
    rules: Rules,
    elsewhere: Sequence[InFlight] = (),
    user_rate: Callable[[str], float] = lambda _: inf,
    account_rate: Callable[[str], float] = lambda _: inf,
) -> list[TaskPortion]:
    """Return portions that fill free places of a window.

    The places are shared among users first, and then among the accounts of each user. While others
    compete, each gets at most its share, and never more than half. Places that one leaves are
    offered to the others in the next round, milliseconds later.

    Args:
      free: The number of free places.
      places: The places of the domain.
      flying: Counts of queued tasks.
      waiting: Accounts with ready tasks.
      rules: The costs and limits of the domain.
      elsewhere: Counts of queued tasks of the other domains that the same threads serve.
      user_rate: Returns the tasks that were sent for a user lately, per second. Default: infinite,
        so that the window bounds its places.
      account_rate: The same for an account.
    """
    ready: dict[str, list[Waiting]] = defaultdict(list)
    for account in waiting:
        if account_key(account.account) not in rules.blocks.limits:
            ready[account.user].append(account)
    if not ready or free <= 0:
        return []
    by_user = held_by_user([*flying, *elsewhere], user_rate)
    present = {flight.account for flight in flying} | {account.account for account in waiting}
    by_account = {account: Held(rate=account_rate(account)) for account in present}
    for flight in flying:
        by_account[flight.account].add(flight)
    used = _used(flying, rules)
    users = {flight.user for flight in flying} | ready.keys()
    share = places.without_reserve().share(len(ready), alone=len(users) == 1)
    turn = max(free // len(ready), 1)
    portions: list[TaskPortion] = []
    for user, accounts in ready.items():
        held = by_user.get(user) or Held(rate=user_rate(user))
        slots = min(share.most(held) - held.tasks, turn, free)
        if slots > 0:
            rivals = {flight.account for flight in flying if flight.user == user}
            alone = len(rivals | {account.account for account in accounts}) == 1
            inner = share.share(len(accounts), alone=alone)
            added = _of_user(accounts, slots, inner, by_account, used, rules)
            free -= sum(portion.most for portion in added)
            portions += added
    return portions


def _of_user(
    accounts: Sequence[Waiting],
    slots: int,
    share: Places,
    by_account: Mapping[str, Held],
    used: Counter[str],
    rules: Rules,
) -> list[TaskPortion]:
    """Return the portions of a user's accounts."""
    turn = max(slots // len(accounts), 1)
    portions: list[TaskPortion] = []
    for account in accounts:
        held = by_account[account.account]
        most = share.most(held)
        count = min(most - held.tasks, turn, slots)
        if count > 0:
            added = _portions(account, count, held.backfill, most, used, rules)
            slots -= sum(portion.most for portion in added)
            portions += added
    return portions


def _used(flying: Iterable[InFlight], rules: Rules) -> Counter[str]:
    """Return the units in use of each concurrency limit, by key."""
    used = Counter[str]()
    for flight in flying:
        for limit in rules.limits(flight):
            if isinstance(limit, Concurrency):
                weight = 0 if flight.type == REREAD else rules.weight(limit, flight.type)
                used[rules.key(limit, flight)] += flight.count * weight
    return used


@dataclass(slots=True)
class _Room:
    """The places that an account may use now.

    Attributes:
      slots: Places for all of its tasks.
      closed: Types that a limit blocks.
      capped: Types that share fewer places than `slots`.
      cap: The number of places for the capped types together.
      metered: Types that use scarce units of a rate limit.
    """

    slots: int
    closed: set[str] = field(default_factory=set)
    capped: set[str] = field(default_factory=set)
    cap: int = 0
    metered: set[str] = field(default_factory=set)


def _portions(
    account: Waiting, slots: int, backfilling: int, most: int, used: Counter[str], rules: Rules
) -> list[TaskPortion]:
    """Return an account's portions, by lane: live tasks first.

    Backfill gets at most half of the places while live tasks wait.
    """
    room = _room(account, slots, used, rules)
    both = account.live and account.backfill
    backfill = min(room.slots // 2, max(most // 2 - backfilling, 0)) if both else room.slots
    lanes = (
        {Lane.BACKFILL: backfill}
        if not account.live
        else {Lane.LIVE: room.slots - backfill if both else room.slots}
    )
    if both:
        lanes[Lane.BACKFILL] = backfill
    portions = []
    for lane, count in lanes.items():
        half = room.cap - room.cap // 2 if lane == Lane.LIVE else room.cap // 2
        cap = half if both else room.cap
        if count > 0 and (portion := _portion(account.account, lane, count, cap, room, rules)):
            portions.append(portion)
    return portions


def _portion(
    account: str, lane: str, count: int, cap: int, room: _Room, rules: Rules
) -> TaskPortion | None:
    """Return the portion of one lane; None if no task may run.

    If a limit affects every type, the portion filters no types: that filter would read all ready
    tasks.
    """
    capped, metered = room.capped - room.closed, room.metered - room.closed
    every = rules.costs.keys() - {START}
    if metered:
        count = min(cap, count) if capped >= every else count
        if not count:
            return None
        return TaskPortion(
            account,
            lane,
            count,
            sorted(capped),
            min(cap, count),
            sorted(room.closed),
            metered_types=sorted(metered),
            ids_only=metered | room.closed >= every,
        )
    if room.capped | room.closed >= every:
        if not room.closed and capped:
            return TaskPortion(account, lane, min(cap, count)) if cap else None
        if not capped and room.closed:
            return None
    return TaskPortion(account, lane, count, sorted(capped), min(cap, count), sorted(room.closed))


def _hold_back(room: _Room, breaker: OpenBreaker, rules: Rules) -> None:
    """Leave room for one task if the breaker's probe is due, and otherwise for none."""
    probes = int(breaker.probe_due)
    if breaker.types is None:
        room.slots = min(room.slots, probes)
    elif probes:
        room.cap = 1
        room.capped |= set(breaker.types) & rules.costs.keys()
    else:
        room.closed |= set(breaker.types) & rules.costs.keys()


def _room(account: Waiting, slots: int, used: Counter[str], rules: Rules) -> _Room:
    """Return the places that the account's limits allow.

    Add their units to `used`, because other accounts may share these limits.
    """
    room = _Room(slots)
    for breaker in rules.blocks.breakers.get(account.account, ()):
        _hold_back(room, breaker, rules)
    for limit in rules.limits(account):
        types, key = rules.types(limit), rules.key(limit, account)
        touched = set(rules.costs) if types is None else types
        if key in rules.blocks.limits:
            room.closed |= touched
            room.slots = 0 if types is None else room.slots
        if isinstance(limit, Rate):
            if key in rules.available:
                _meter(room, account, limit, used, rules)
            continue
        heaviest = max(
            (rules.weight(limit, type) for type in touched), default=1 if types is None else 0
        )
        if not heaviest:
            continue
        # A task that weighs more than the limit runs alone, instead of never.
        heaviest = min(heaviest, limit.tasks)
        free = max(limit.tasks - used[key], 0) // heaviest
        used[key] += min(room.slots, free) * heaviest
        if types is None:
            room.slots = min(room.slots, free)
        elif free == 0:
            room.closed |= types
        elif free < room.slots:
            room.cap = min(free, room.cap) if room.capped else free
            room.capped |= types
    return room


def _meter(room: _Room, account: Waiting, limit: Rate, used: Counter[str], rules: Rules) -> None:
    """Meter the types that use a rate limit, unless its units suffice for all places."""
    key = rules.key(limit, account)
    types = {type for type in rules.costs if rules.weight(limit, type) > 0}
    left = rules.available[key].less(used[key])
    if not left.units:
        room.closed |= types
        return
    most = room.slots * max((rules.weight(limit, type) for type in types), default=0)
    both = account.live and account.backfill
    shared = rules.rivals.get(key, 1) > 1 and left.units < PLENTY * limit.units
    paced = account.backfill and most > rules.paces.get(key, inf)
    if left.reserved_cost or most > left.units or both or shared or paced:
        room.metered |= types
    else:
        used[key] += most
