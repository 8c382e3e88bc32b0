"""The ages of dispatches, by the leader's monotonic clock."""

from __future__ import annotations

import time
from bisect import bisect_right

STEP_SECONDS = 0.1
"""Seconds between two samples."""

MAX_SAMPLES = 1_024
"""The number of samples above which old ones are thinned out."""

PRECISION = 0.05
"""The distance of two old samples, as a share of their age."""


class DispatchAges:
    """Samples of the latest `dispatch_seq`, from which it knows which dispatches are old."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._sequences: list[int] = []
        self._latest = -1

    def note(self, sequence: int) -> None:
        """Record a sequence that was dispatched by now. A smaller one is of a restored database."""
        if sequence < self._latest:
            self._times, self._sequences = [], []
        self._latest = sequence
        self._sample()

    def before(self, seconds: float) -> int:
        """Return the sequence up to which all dispatches are older than this; -1 if none is."""
        self._sample()
        index = bisect_right(self._times, time.monotonic() - seconds)
        return self._sequences[index - 1] if index else -1

    def _sample(self) -> None:
        now = time.monotonic()
        if self._sequences and self._sequences[-1] == self._latest:
            return
        if self._times and now - self._times[-1] < STEP_SECONDS:
            return
        self._times.append(now)
        self._sequences.append(self._latest)
        if len(self._times) > MAX_SAMPLES:
            self._thin_out(now)

    def _thin_out(self, now: float) -> None:
        kept = [(self._times[-1], self._sequences[-1])]
        for at, sequence in zip(reversed(self._times), reversed(self._sequences), strict=True):
            if kept[-1][0] - at > (now - at) * PRECISION:
                kept.append((at, sequence))
        kept.reverse()
        self._times = [at for at, _ in kept]
        self._sequences = [sequence for _, sequence in kept]
