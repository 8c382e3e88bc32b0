"""The leader's state of a domain: its threads, its window, and its phase.

```
SCANNING   ── every ready task is sent, or none is ready ─▶ IDLE
SCANNING   ── limits or shares hold back all ready tasks ─▶ HELD_BACK
HELD_BACK  ── `retry_at`, a wake-up, the refresh ─────────▶ SCANNING
IDLE       ── a wake-up, the refresh finds open runs ─────▶ SCANNING
```

A domain without threads keeps its phase until a worker serves it again.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from core.ledger.dispatching import RING_START, InFlight, RingLook, Waiting

WINDOW_PER_THREAD = 3
"""The smallest window of a domain, in tasks per thread."""

WINDOW_SECONDS = 0.25
"""The window of a domain in seconds of its throughput, if that is larger.

The window must last longer than a task takes for dispatch, run and commit; otherwise it bounds the
throughput. With a tenth of a second, a disk whose commits took 50 ms limited the engine to a sixth
of its speed.
"""

MAX_PASSED_ACCOUNTS = 5_000
"""The number of held-back accounts that one scan passes over before it pauses."""


MAX_TURNS = 10_000
"""The number of accounts whose latest turn is remembered."""

SEARCH_SECONDS = 1.0
"""Seconds between two looks at a large ring in which no task seems to be available."""

RATE_SECONDS = 0.5
"""The time over which the rate of a user or an account is measured, in seconds."""


class Rates:
    """Rates at which tasks were sent lately, by user or by account."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, Counter[str]]] = deque()
        self._totals = Counter[str]()

    def add(self, sent: Counter[str]) -> None:
        """Record that tasks were sent."""
        self._expire()
        self._sent.append((time.monotonic(), sent))
        self._totals.update(sent)

    def per_second(self, key: str) -> float:
        """Return the rate of a user or an account, in tasks per second."""
        self._expire()
        return self._totals[key] / RATE_SECONDS

    def _expire(self) -> None:
        oldest = time.monotonic() - RATE_SECONDS
        while self._sent and self._sent[0][0] < oldest:
            for key, count in self._sent.popleft()[1].items():
                self._totals[key] -= count
                if not self._totals[key]:
                    del self._totals[key]


class Phase(Enum):
    """The phase of a domain: when the leader scans it for ready tasks."""

    SCANNING = "scanning"
    """Tasks may be ready. Each round scans."""

    HELD_BACK = "held back"
    """Limits, shares or an invalid setting hold back ready tasks. Scan again at `retry_at`."""

    IDLE = "idle"
    """No task is ready. Scan again after a wake-up."""


@dataclass(slots=True)
class Domain:
    """The leader's state of one domain.

    Attributes:
      threads: The number of threads of live workers that serve it. Without threads, the leader
        does not scan it.
      processes: The number of their processes.
      neighbours: The domains that some of these threads serve too.
      after: The account at which the latest look ended; the next one starts behind it.
      fresh_after: The same for looks for users that hold no place.
      phase: The phase of the domain.
      retry_at: The time of the next scan in phase `HELD_BACK`, by `time.monotonic`; otherwise
        infinite.
      passed: The number of consecutive held-back accounts that this scan has passed over.
      pause: The shortest time in seconds for which limits or shares hold back an account that this
        scan has passed over.
      is_large: True if one look does not see the complete ring of accounts.
      began_at: The account behind which the scan of a large ring began; None before its first look.
      lapped: True if this scan has passed the end of the ring.
      flying: The queued tasks at `counted_at`.
      fresh_look_at: The time of the latest look while the window had little room.
      searched_at: The time of the latest look at a large ring without available tasks.
      stuck_since: The time since which ready tasks wait for a free place, by `time.monotonic`; None
        while tasks are sent.
      throughput: Pairs of (time, number of tasks sent) of the last second.
      users: The rates of users.
      accounts: The rates of accounts.
      turns: The number of the latest turn of accounts, the longest ago first.
    """

    threads: int = 0
    processes: int = 0
    neighbours: frozenset[str] = frozenset()
    after: UUID = RING_START
    fresh_after: UUID = RING_START
    phase: Phase = Phase.SCANNING
    retry_at: float = float("inf")
    passed: int = 0
    pause: float = float("inf")
    is_large: bool = False
    began_at: UUID | None = None
    lapped: bool = False
    flying: list[InFlight] = field(default_factory=list)
    counted_at: float = 0.0
    fresh_look_at: float = 0.0
    searched_at: float = float("-inf")
    stuck_since: float | None = None
    throughput: deque[tuple[float, int]] = field(default_factory=deque)
    users: Rates = field(default_factory=Rates)
    accounts: Rates = field(default_factory=Rates)
    turns: dict[str, int] = field(default_factory=dict)

    def due(self) -> bool:
        """Return True if this round scans the domain."""
        return self.phase is Phase.SCANNING or time.monotonic() >= self.retry_at

    def next_scan_in(self, pause: float) -> float:
        """Return the seconds until the next scan; `pause` applies while the domain is scanning."""
        until_retry = self.retry_at - time.monotonic()
        return min(pause, until_retry) if self.phase is Phase.SCANNING else until_retry

    def window(self) -> int:
        """Return the number of tasks that may be in Redis at a time."""
        oldest = time.monotonic() - 1.0
        while self.throughput and self.throughput[0][0] < oldest:
            self.throughput.popleft()
        rate = sum(count for _, count in self.throughput)
        return max(WINDOW_PER_THREAD * self.threads, int(rate * WINDOW_SECONDS))

    def in_turn(self, waiting: Iterable[Waiting], holders: Container[str]) -> list[Waiting]:
        """Return accounts in the order of their latest turn, those of users without a place first.

        An account may have a turn and no task that its limits allow. Without this order, it would
        have each turn of its user, and the other accounts none.
        """
        return sorted(
            waiting, key=lambda one: (one.user in holders, self.turns.get(one.account, 0))
        )

    def had_turn(self, accounts: Iterable[str]) -> None:
        """Record that these accounts had a turn, whether it brought them tasks or not."""
        turn = next(reversed(self.turns.values()), 0) + 1
        for account in accounts:
            self.turns.pop(account, None)
            self.turns[account] = turn
        while len(self.turns) > MAX_TURNS:
            del self.turns[next(iter(self.turns))]

    # Transitions.

    def wake(self) -> None:
        """Scan in the next round, because work was added."""
        self.phase = Phase.SCANNING

    def begin_scan(self) -> None:
        """Begin the scan of a round."""
        self.phase, self.retry_at = Phase.SCANNING, float("inf")

    def looked(self, look: RingLook) -> bool:
        """Move on behind a look. Returns True if the scan has seen the complete ring."""
        if self.began_at is None:
            self.began_at, self.lapped = self.after, False
        seen = look.is_complete
        if not look.is_complete and look.end != self.after:
            self.lapped |= look.end < self.after
            seen = self.lapped and look.end >= self.began_at
        self.is_large = not look.is_complete
        self.after, self.fresh_after = look.end, look.fresh_end
        return seen

    def may_search(self) -> bool:
        """Return True once in `SEARCH_SECONDS`: look at a large ring without available tasks.

        After a clock was set back, such looks find tasks that are further ahead than they can be.
        """
        now = time.monotonic()
        if now - self.searched_at < SEARCH_SECONDS:
            return False
        self.searched_at = now
        return True

    def found_nothing(self) -> None:
        """Become idle, because no account has a ready task."""
        self._end_scan()
        self.phase, self.stuck_since = Phase.IDLE, None

    def hold_back(self, seconds: float) -> None:
        """Scan again after `seconds`; if that is infinite, after the next wake-up."""
        self._end_scan()
        self.phase = Phase.HELD_BACK if seconds < float("inf") else Phase.IDLE
        self.retry_at = time.monotonic() + seconds

    def pass_over(self, accounts: int, seconds: float, *, more: bool) -> None:
        """Pass over accounts that limits or shares hold back for `seconds`.

        If there may be `more` accounts behind them, the next round scans those.
        """
        self.passed += accounts
        self.pause = min(self.pause, seconds)
        self.retry_at = time.monotonic() + self.pause
        if not more or self.passed >= MAX_PASSED_ACCOUNTS:
            self.hold_back(self.pause)

    def sent(self, tasks: int, *, more: bool) -> None:
        """Record that tasks were sent. If there may be `more`, keep scanning."""
        self._end_scan()
        self.throughput.append((time.monotonic(), tasks))
        self.phase, self.stuck_since = Phase.SCANNING if more else Phase.IDLE, None

    def is_stuck(self) -> None:
        """Record that ready tasks wait for a free place."""
        self.stuck_since = self.stuck_since or time.monotonic()

    def _end_scan(self) -> None:
        self.passed, self.pause, self.began_at = 0, float("inf"), None
