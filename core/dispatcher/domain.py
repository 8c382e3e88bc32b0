"""The leader's state of a domain: its threads, its window, and its phase.

```
SCANNING   ── every ready task is sent, or none is ready ─▶ IDLE
SCANNING   ── limits hold back every ready task ──────────▶ HELD_BACK
HELD_BACK  ── `retry_at`, a wake-up, the refresh ─────────▶ SCANNING
IDLE       ── a wake-up, the refresh finds open runs ─────▶ SCANNING
```

A domain without threads keeps its phase until a worker serves it again.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from core.ledger.dispatching import RING_START

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


class Phase(Enum):
    """The phase of a domain: when the leader scans it for ready tasks."""

    SCANNING = "scanning"
    """Tasks may be ready. Each round scans."""

    HELD_BACK = "held back"
    """Limits or an invalid setting hold back ready tasks. Scan again at `retry_at`."""

    IDLE = "idle"
    """No task is ready. Scan again after a wake-up."""


@dataclass(slots=True)
class Domain:
    """The leader's state of one domain.

    Attributes:
      threads: The number of threads of live workers that serve it. Without threads, the leader
        does not scan it.
      cursor: The account at which the latest scan ended; the next one starts behind it.
      phase: The phase of the domain.
      retry_at: The time of the next scan in phase `HELD_BACK`, by `time.monotonic`; otherwise
        infinite.
      passed: The number of consecutive held-back accounts that this scan has passed over.
      throughput: Pairs of (time, number of tasks sent) of the last second.
    """

    threads: int = 0
    cursor: UUID | str = RING_START
    phase: Phase = Phase.SCANNING
    retry_at: float = float("inf")
    passed: int = 0
    throughput: deque[tuple[float, int]] = field(default_factory=deque)

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

    # Transitions.

    def wake(self) -> None:
        """Scan in the next round, because work was added."""
        self.phase = Phase.SCANNING

    def begin_scan(self) -> None:
        """Begin the scan of a round."""
        self.phase, self.retry_at = Phase.SCANNING, float("inf")

    def found_nothing(self) -> None:
        """Become idle, because no account has a ready task."""
        self.phase, self.passed = Phase.IDLE, 0

    def hold_back(self, seconds: float) -> None:
        """Scan again after `seconds`; if that is infinite, after the next wake-up."""
        self.phase = Phase.HELD_BACK if seconds < float("inf") else Phase.IDLE
        self.retry_at = time.monotonic() + seconds

    def pass_over(self, accounts: int, seconds: float, *, more: bool) -> None:
        """Pass over accounts that limits hold back for `seconds`.

        If there may be `more` accounts behind them, the next round scans those.
        """
        self.passed += accounts
        self.hold_back(seconds)
        if more and self.passed < MAX_PASSED_ACCOUNTS:
            self.phase = Phase.SCANNING
        else:
            self.passed = 0

    def sent(self, tasks: int, *, more: bool) -> None:
        """Record that tasks were sent. If there may be `more`, keep scanning."""
        self.throughput.append((time.monotonic(), tasks))
        self.phase, self.passed = Phase.SCANNING if more else Phase.IDLE, 0
