"""The results of a benchmark, and the budgets that bound them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line.

    Attributes:
      rounds: The number of alternating rounds. Default: 3, or 1 with `quick`.
      quick: Use sizes so small that the figures are meaningless, to check that a benchmark works.
        Default: False.
      rows: The number of rows in the largest table of `upsert`. Default: None, its own default.
      only: Measure only the cases of `ftp`, the forms of `polls` or the parts of `slack` whose
        name contains this text. Default: all of them.
      scale: The size of `polls` and `lookups`, and the speed of the clock of `slack`, relative to
        the full one. Default: 1.
      minutes: The time after which `polls` begins no further step, and the part `polls` of `slack`
        ends. Default: None, no limit.
    """

    rounds: int = 3
    quick: bool = False
    rows: int | None = None
    only: str = ""
    scale: float = 1.0
    minutes: float | None = None

    def size(self, full: int, quick: int) -> int:
        """Return `quick` with the option `--quick`, and `full` otherwise."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on one figure.

    Either `at_least` or `at_most` is set, in the unit of `figure`.
    """

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
    """The rounds of the engine and of a peer.

    Attributes:
      unit: The unit of the figures, such as `tasks/s`.
      ours, peers: One figure for each round, in the order of measurement.
      peer: A readable description of the peer.
      budgets: Bounds on the ratio, or on other figures that the benchmark names.
      details: Further figures by name. Lists of rows become tables of the page.
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
        """Return the report as JSON."""
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
        """Return the report as text for a terminal."""
        lines = [_line(self.name, self.ours, self.unit)]
        if self.peers:
            lines += [_line(f"  {self.peer}", self.peers, self.unit), f"  ratio {self.ratio:.2f}"]
        lines += [
            f"  {'met' if b.met else 'MISSED'}: {b.what} {b.figure:,.4g}, budget {b.bound}"
            for b in self.budgets
        ]
        return "\n".join([*lines, *(f"  {name}: {value}" for name, value in self.details.items())])


def ratio(ours: Sequence[float], peers: Sequence[float]) -> float:
    """Return the median of the ratios of the rounds, so that machine load affects both sides."""
    return statistics.median(one / other for one, other in zip(ours, peers, strict=True))


def _line(name: str, figures: Sequence[float], unit: str) -> str:
    rounds = ", ".join(f"{figure:,.4g}" for figure in figures)
    return f"{name}: {statistics.median(figures):,.4g} {unit}" + (
        f" (rounds: {rounds})" if len(figures) < 10 else ""
    )
