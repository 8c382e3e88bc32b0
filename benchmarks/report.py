"""What a benchmark measured."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Report:
    """Rounds of us and of a peer.

    Attributes:
      unit: Of the figures, such as `tasks/s`.
      ours, peers: A figure a round, in the order they were taken.
      budget: What the ratio (or, without a peer, our own median) must reach; as text.
      details: More figures by name.
    """

    name: str
    unit: str
    ours: Sequence[float]
    peers: Sequence[float] = ()
    peer: str = ""
    budget: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The median of the ratios round by round: what drifts in the machine drifts for both."""
        if not self.peers:
            return None
        return statistics.median(ours / theirs for ours, theirs in zip(self.ours, self.peers, strict=True))

    def data(self) -> dict[str, Any]:
        """As JSON."""
        peer = statistics.median(self.peers) if self.peers else None
        figures = {"name": self.name, "ours": statistics.median(self.ours), "peer": peer, "ratio": self.ratio}
        rounds = {"ours": list(self.ours), "peer": list(self.peers)}
        return figures | {"unit": self.unit, "budget": self.budget, "rounds": rounds, "details": self.details}

    def text(self) -> str:
        """For people."""
        lines = [f"{self.name}: {statistics.median(self.ours):,.4g} {self.unit} (rounds: {_rounds(self.ours)})"]
        if self.peers:
            lines.append(
                f"  {self.peer}: {statistics.median(self.peers):,.4g} {self.unit} (rounds: {_rounds(self.peers)})"
            )
            lines.append(f"  ratio {self.ratio:.2f}; budget {self.budget}")
        elif self.budget:
            lines.append(f"  budget {self.budget}")
        return "\n".join([*lines, *(f"  {name}: {value}" for name, value in self.details.items())])


def _rounds(figures: Sequence[float]) -> str:
    return ", ".join(f"{figure:,.4g}" for figure in figures)


def describe_machine() -> str:
    """What these figures were taken on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"
