"""Who gets how much of a free window: fair among accounts, live before backfill, never more at once than a limit allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.accounts.limits import account_key, from_json, limit_key, overridden, weight
from core.integration.limits import AtOnce, Limit
from core.ledger.dispatching import InFlight, Portion, Waiting
from core.settings import LimitOverride


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for a domain now.

    Attributes:
      domain: The domain.
      costs: Each task type's cost.
      overrides: The operator's figures by limit name.
      blocked: Keys of limits that are exhausted.
    """

    domain: str
    costs: Mapping[str, Mapping[str, int]]
    overrides: Mapping[str, LimitOverride]
    blocked: frozenset[str] | set[str] = frozenset()

    def limits(self, account: InFlight | Waiting) -> list[Limit]:
        """The limits of an account."""
        return overridden(from_json(account.limits), self.overrides)

    def key(self, limit: Limit, account: InFlight | Waiting) -> str:
        """What a limit is counted under for this account."""
        return limit_key(limit, domain=self.domain, account_id=account.account, group=account.group)

    def weight(self, limit: Limit, type: str) -> int:
        """How much of a limit a task of this type takes."""
        return weight(limit, self.costs.get(type, {}))

    def types(self, limit: Limit) -> set[str] | None:
        """The types that take of a limit; None for all of them."""
        touched = {type for type in self.costs if self.weight(limit, type) > 0}
        return None if isinstance(limit, AtOnce) and touched == set(self.costs) else touched


def allocate(
    free: int, window: int, flying: Sequence[InFlight], waiting: Sequence[Waiting], rules: Rules
) -> list[Portion]:
    """Portions that fill `free` places of a window.

    While accounts compete, none holds more than its share of the window, and never more than half. What one account leaves is
    offered to the others at the next look, some milliseconds later.
    """
    ready = [account for account in waiting if account.active and account_key(account.account) not in rules.blocked]
    ready = [account for account in ready if account.live or account.backfill]
    if not ready or free <= 0:
        return []
    held = Counter[str]()
    backfilling = Counter[str]()
    for flight in flying:
        held[flight.account] += flight.count
        backfilling[flight.account] += flight.count if flight.lane == "backfill" else 0
    used = _used(flying, rules)
    alone = len(ready) == 1 and not any(account != ready[0].account for account in held)
    most = window if alone else max(window // max(len(ready), 2), 1)
    share = max(free // len(ready), 1)
    portions: list[Portion] = []
    for account in ready:
        slots = min(most - held[account.account], max(share, 1), free)
        if slots <= 0:
            continue
        given = _portions(account, slots, backfilling[account.account], most, used, rules)
        free -= sum(portion.most for portion in given)
        portions += given
        if free <= 0:
            break
    return portions


def _used(flying: Iterable[InFlight], rules: Rules) -> Counter[str]:
    """How much of each limit of tasks at once is taken."""
    used = Counter[str]()
    for flight in flying:
        for limit in rules.limits(flight):
            if isinstance(limit, AtOnce):
                used[rules.key(limit, flight)] += flight.count * rules.weight(limit, flight.type)
    return used


def _portions(
    account: Waiting, slots: int, backfilling: int, most: int, used: Counter[str], rules: Rules
) -> list[Portion]:
    """One account's portions: by lane, and apart for the types that a limit of tasks at once leaves little room."""
    closed, capped, slots = _limited(account, slots, used, rules)
    if slots <= 0:
        return []
    backfill = slots if not account.live else min(slots // 2, max(most // 2 - backfilling, 0))
    lanes = [
        ("live", slots - backfill if account.backfill else slots, account.live),
        ("backfill", backfill, account.backfill),
    ]
    portions = []
    for lane, count, there in lanes:
        if not there or count <= 0:
            continue
        if capped is None:
            portions.append(Portion(account.account, lane, count, without_types=sorted(closed) or None))
            continue
        types, room = capped
        limited = min(count, room)
        if limited > 0:
            portions.append(Portion(account.account, lane, limited, only_types=sorted(types - closed)))
            capped = (types, room - limited)
        if count > limited:
            portions.append(Portion(account.account, lane, count - limited, without_types=sorted(closed | types)))
    return portions


def _limited(
    account: Waiting, slots: int, used: Counter[str], rules: Rules
) -> tuple[set[str], tuple[set[str], int] | None, int]:
    """Types that may not go now; types that share a smaller room than the slots; and the slots that are left for all."""
    closed: set[str] = set()
    capped: tuple[set[str], int] | None = None
    for limit in rules.limits(account):
        types = rules.types(limit)
        key = rules.key(limit, account)
        if key in rules.blocked:
            closed |= set(rules.costs) if types is None else types
            slots = 0 if types is None else slots
        if not isinstance(limit, AtOnce):
            continue
        touched = set(rules.costs) if types is None else types
        heaviest = max((rules.weight(limit, type) for type in touched), default=1)
        room = max(limit.tasks - used[key], 0) // heaviest
        if types is None:
            slots = min(slots, room)
        elif room < slots:
            closed |= types if room == 0 else set()
            both = (types | capped[0], min(room, capped[1])) if capped else (types, room)
            capped = both if room else capped
        used[key] += min(slots, room) * heaviest
    return closed, capped, slots
