"""The result of a soak: progress lines, a table, and one line of JSON."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from soak.memory import grows

MARKS = re.compile(r"(<!-- soak: [^>]* -->).*(<!-- /soak -->)", re.DOTALL)

SHOWN = 10
"""The number of failures that are printed in full."""


@dataclass
class Result:
    """The result of a soak.

    Attributes:
      not_injected: Faults that failed, with their errors.
      most_calls: The largest number of calls in any window of the budget.
      calls_allowed: The upper bound of `most_calls`.
      memory: Medians of the second and the last quarter in MiB; None if no process lived through
        both.
    """

    minutes: float
    seed: int
    accounts: int
    runs: int
    tasks: int
    faults: Mapping[str, int]
    not_injected: list[str]
    replaced: int
    lost: int
    duplicated: int
    most_calls: int
    calls_allowed: int
    memory: dict[str, tuple[float, float] | None]
    memory_judged: bool
    wrong: list[str] = field(default_factory=list)
    at: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    where: str = field(
        default_factory=lambda: (
            f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        )
    )

    @property
    def failures(self) -> list[str]:
        """The reasons why the soak failed; empty if it passed."""
        found = list(self.wrong)
        if self.lost or self.duplicated:
            found.append(f"{self.lost} lost, {self.duplicated} duplicated")
        if self.most_calls > self.calls_allowed:
            found.append(
                f"{self.most_calls} calls in a window of the budget, and {self.calls_allowed} are"
                " allowed"
            )
        for name, medians in self.memory.items() if self.memory_judged else ():
            if medians is None:
                found.append(f"the memory of {name} cannot be judged: none lived long enough")
            elif grows(*medians):
                found.append(
                    f"the memory of {name} grew from {medians[0]:.0f} to {medians[1]:.0f} MiB"
                )
        return found

    def as_json(self) -> dict[str, object]:
        """Return the result for programs."""
        return {
            **asdict(self),
            "faults_in_all": sum(self.faults.values()),
            "failures": self.failures,
        }

    def as_markdown(self) -> str:
        """Return the table for the page on reliability."""
        lines = [
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in self._rows().items()),
        ]
        lines += ["", "| fault | times |", "|---|---|"]
        lines += [
            f"| {name} | {count} |"
            for name, count in sorted(self.faults.items(), key=lambda row: (-row[1], row[0]))
        ]
        return "\n".join(lines) + "\n"

    def _rows(self) -> dict[str, str]:
        memory = {
            f"memory of {name}, MiB, second quarter and last": (
                "not judged" if medians is None else f"{medians[0]:.0f}, {medians[1]:.0f}"
            )
            for name, medians in self.memory.items()
        }
        return {
            "when, where": f"{self.at}; {self.where}",
            "minutes, seed": f"{self.minutes:g}, {self.seed}",
            "accounts synced, runs ended": f"{self.accounts:,}, {self.runs:,}",
            "tasks done": f"{self.tasks:,}",
            "faults injected": f"{sum(self.faults.values()):,}",
            "programs started again": f"{self.replaced:,}",
            "**lost**": f"**{self.lost}**",
            "**duplicated**": f"**{self.duplicated}**",
            "runs that ended early, twice or not": str(sum("run" in one for one in self.wrong)),
            "most calls in a window of the budget, allowed": (
                f"{self.most_calls}, {self.calls_allowed}"
            ),
            **memory,
        }


def write(page: Path, table: str) -> None:
    """Write the table between the marks of a page, or to a new page."""
    text = page.read_text("utf-8") if page.exists() else ""
    marked = MARKS.sub(lambda found: f"{found[1]}\n{table}{found[2]}", text)
    page.write_text(marked if MARKS.search(text) else table, "utf-8")


def progress(
    seconds: float,
    tasks: int,
    runs: int,
    lost: int,
    duplicated: int,
    faults: Counter[str],
    now: str,
    memory: Mapping[str, float],
) -> str:
    """Return one line on the progress."""
    sizes = ", ".join(f"{name} {mib:.0f}" for name, mib in memory.items())
    latest = f" [{now}]" if now else ""
    return (
        f"{seconds:5.0f} s  {tasks:8,} tasks  {runs:5,} runs  {faults.total():4} faults{latest}  "
        f"{lost} lost  {duplicated} duplicated  MiB: {sizes}"
    )
