"""What the leader remembers of a domain: its threads, its window, and whether to scan for tasks.

    SCANNING   ── every ready task is sent, or none is ready ─▶ IDLE
    SCANNING   ── limits hold back every ready task ──────────▶ HELD_BACK
    HELD_BACK  ── `retry_at`, a wake-up, the refresh ─────────▶ SCANNING
    IDLE       ── a wake-up, the refresh finds open runs ─────▶ SCANNING

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
WINDOW_SECONDS = 0.25
"""A domain's window: three tasks for each thread, or a quarter of a second of its throughput,
whichever is larger.

The window must last longer than a task's way through dispatch, run and commit, or it bounds the
throughput: with a tenth of a second, a disk whose commits took 50 ms held the engine at a sixth of
its speed.
"""

MAX_PASSED_ACCOUNTS = 5_000
"""Held-back accounts that one scan passes over before it pauses: they may be paused, or blocked."""


class Phase(Enum):
    """Whether the leader scans a domain for ready tasks."""

    SCANNING = "scanning"
    """Tasks may be ready: each round scans."""

    HELD_BACK = "held back"
    """Tasks are ready, and limits or a wrong setting hold them back: scan again at `retry_at`."""

    IDLE = "idle"
    """No task is ready: scan again after a wake-up."""


@dataclass(slots=True)
class Domain:
    """One domain, as the leader knows it.

    Attributes:
      threads: Threads of live workers that serve it; without any, the leader does not scan it.
      cursor: The account where the latest scan ended; the next one begins behind it.
      phase: Whether to scan.
      retry_at: When to scan at the latest, by `time.monotonic`; infinite unless limits hold it
        back.
      passed: Held-back accounts in a row that this scan has passed over.
      throughput: When how many tasks were sent, within the last second.
    """

    threads: int = 0
    cursor: UUID | str = RING_START
    phase: Phase = Phase.SCANNING
    retry_at: float = float("inf")
    passed: int = 0
    throughput: deque[tuple[float, int]] = field(default_factory=deque)

    def due(self) -> bool:
        """Whether to scan in this round."""
        return self.phase is Phase.SCANNING or time.monotonic() >= self.retry_at

    def next_scan_in(self, pause: float) -> float:
        """Seconds until the next scan; `pause` is the leader's while nothing moves."""
        until_retry = self.retry_at - time.monotonic()
        return min(pause, until_retry) if self.phase is Phase.SCANNING else until_retry

    def window(self) -> int:
        """How many tasks may stand in Redis at one time."""
        oldest = time.monotonic() - 1.0
        while self.throughput and self.throughput[0][0] < oldest:
            self.throughput.popleft()
        rate = sum(count for _, count in self.throughput)
        return max(WINDOW_PER_THREAD * self.threads, int(rate * WINDOW_SECONDS))

    # The transitions.

    def wake(self) -> None:
        """Work was added: scan in the next round."""
        self.phase = Phase.SCANNING

    def begin_scan(self) -> None:
        """A round scans the domain."""
        self.phase, self.retry_at = Phase.SCANNING, float("inf")

    def found_nothing(self) -> None:
        """No account has a ready task."""
        self.phase, self.passed = Phase.IDLE, 0

    def hold_back(self, seconds: float) -> None:
        """Scan again after `seconds`; if they are infinite, after the next wake-up."""
        self.phase = Phase.HELD_BACK if seconds < float("inf") else Phase.IDLE
        self.retry_at = time.monotonic() + seconds

    def pass_over(self, accounts: int, seconds: float, *, more: bool) -> None:
        """Limits hold back all of these accounts for `seconds`.

        If there may be `more` accounts behind them, the next round scans those.
        """
        self.passed += accounts
        self.hold_back(seconds)
        if more and self.passed < MAX_PASSED_ACCOUNTS:
            self.phase = Phase.SCANNING
        else:
            self.passed = 0

    def sent(self, tasks: int, *, more: bool) -> None:
        """So many tasks were sent, and there may be `more`."""
        self.throughput.append((time.monotonic(), tasks))
        self.phase, self.passed = Phase.SCANNING if more else Phase.IDLE, 0
