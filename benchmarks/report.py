"""What a benchmark measured, and whether it keeps its budgets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks of a benchmark.

    Attributes:
      rounds: Alternating rounds. Default: 3, or 1 with `quick`.
      quick: Sizes so small that the figures mean nothing: only that it works.
      rows: The largest table of `upsert`. Default: its own.
    """

    rounds: int = 3
    quick: bool = False
    rows: int | None = None

    def size(self, full: int, quick: int) -> int:
        """The one or the other."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Budget:
    """One bound of the contract. Either `at_least` or `at_most` is set, in the unit of `figure`."""

    what: str
    figure: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        return (self.at_least is None or self.figure >= self.at_least) and (
            self.at_most is None or self.figure <= self.at_most
        )

    @property
    def bound(self) -> str:
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"

    def data(self) -> dict[str, Any]:
        return {"what": self.what, "figure": self.figure, "bound": self.bound, "met": self.met}


@dataclass(slots=True)
class Report:
    """Rounds of us and of a peer.

    Attributes:
      unit: Of the figures, such as `tasks/s`.
      ours, peers: A figure a round, in the order they were taken.
      peer: What the peer is, for people.
      budgets: Bounds on the ratio, or on whatever the benchmark names.
      details: More figures by name; lists of rows become tables of the page.
    """

    name: str
    unit: str
    ours: Sequence[float]
    peers: Sequence[float] = ()
    peer: str = ""
    budgets: Sequence[Budget] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return ratio(self.ours, self.peers) if self.peers else None

    def data(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "ours": statistics.median(self.ours),
            "peer": statistics.median(self.peers) if self.peers else None,
            "ratio": self.ratio,
            "unit": self.unit,
            "peer_name": self.peer,
            "budgets": [budget.data() for budget in self.budgets],
            "rounds": {"ours": list(self.ours), "peer": list(self.peers)},
            "details": dict(self.details),
        }

    def text(self) -> str:
        """For people."""
        lines = [_line(self.name, self.ours, self.unit)]
        if self.peers:
            lines += [_line(f"  {self.peer}", self.peers, self.unit), f"  ratio {self.ratio:.2f}"]
        lines += [
            f"  {'met' if b.met else 'MISSED'}: {b.what} {b.figure:,.4g}, budget {b.bound}"
            for b in self.budgets
        ]
        return "\n".join([*lines, *(f"  {name}: {value}" for name, value in self.details.items())])


def ratio(ours: Sequence[float], peers: Sequence[float]) -> float:
    """The median of the ratios round by round: what drifts in the machine drifts for both."""
    return statistics.median(one / other for one, other in zip(ours, peers, strict=True))


def _line(name: str, figures: Sequence[float], unit: str) -> str:
    rounds = ", ".join(f"{figure:,.4g}" for figure in figures)
    return f"{name}: {statistics.median(figures):,.4g} {unit}" + (
        f" (rounds: {rounds})" if len(figures) < 10 else ""
    )
