"""Generate the page docs/explanation/performance.md.

The page combines the prose of `performance.md` in this folder with tables and pictures of the
stored results.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from benchmarks import NAMES

PROSE = Path(__file__).with_name("performance.md")
EXPLANATION = Path(__file__).parent.parent / "docs" / "explanation"
PICTURES = "performance"

Results = Mapping[str, Mapping[str, Any]]

NOTHING = "*Not measured yet.*"
QUICK = """> **These figures come from a smoke check** (`--quick`): {names}. They show only that the
> benchmarks work.
"""


def write(results: Path, into: Path = EXPLANATION) -> Path:
    """Draw the pictures and write the page from a folder's JSON files; return the page's path."""
    from benchmarks.plots import draw

    found = read(results)
    draw(found, into / PICTURES)
    path = into / "performance.md"
    path.write_text(
        page(found, {picture.stem for picture in (into / PICTURES).glob("*.svg")}), "utf-8"
    )
    return path


def read(folder: Path) -> Results:
    """Read the stored results, by name of the benchmark."""
    return {
        name: json.loads(path.read_text("utf-8"))
        for name in NAMES
        if (path := folder / f"{name}.json").exists()
    }


def page(results: Results, pictures: Collection[str] = ()) -> str:
    """Return the text of the page.

    Args:
      results: The measured figures.
      pictures: The names of the pictures that exist.
    """
    quick = [f"`{name}`" for name, result in results.items() if result["quick"]]
    fields = {
        "warning": QUICK.format(names=", ".join(quick)) if quick else "",
        "summary": _summary(results),
        "machine": _machine(results),
    }
    for name in NAMES:
        fields[name] = _tables(results[name]) if name in results else NOTHING
    for name in ("throughput", "dlt", "upsert", "claim", "latency", "size"):
        fields[f"picture_{name}"] = (
            f"![{name}]({PICTURES}/{name}.svg)\n" if name in pictures else ""
        )
    return Template(PROSE.read_text("utf-8")).substitute(fields)


def _summary(results: Results) -> str:
    rows: list[dict[str, Any]] = []
    for name in NAMES:
        if name not in results:
            rows.append(
                {"benchmark": f"`{name}`", "what": NOTHING}
                | dict.fromkeys(("budget", "measured", "ours", "peer", "met"), "")
            )
        else:
            rows += [_judged(name, results[name], budget) for budget in results[name]["budgets"]]
    return table(rows)


def _judged(name: str, result: Mapping[str, Any], budget: Mapping[str, Any]) -> dict[str, Any]:
    peer = "" if result["peer"] is None else f"{_number(result['peer'])} {result['unit']}"
    return {
        "benchmark": f"`{name}`",
        "what": budget["what"],
        "budget": budget["bound"],
        "measured": f"**{_number(budget['figure'])}**",
        "ours": f"{_number(result['ours'])} {result['unit']}",
        "peer": peer,
        "met": "not judged" if result["quick"] else "met" if budget["met"] else "**missed**",
    }


def _tables(result: Mapping[str, Any]) -> str:
    """Return a table of the rounds, and one for each detail that is a list of rows."""
    rounds = [{"": "ours"} | _spread(result["rounds"]["ours"], result["unit"])]
    if result["rounds"]["peer"]:
        rounds.append({"": result["peer_name"]} | _spread(result["rounds"]["peer"], result["unit"]))
    lists = [rows for rows in result["details"].values() if isinstance(rows, list)]
    details = [rows for rows in lists if rows and isinstance(rows[0], Mapping)]
    return "\n\n".join(table(rows) for rows in (rounds, *details))


def _spread(figures: Sequence[float], unit: str) -> dict[str, Any]:
    ordered = sorted(figures)
    named = {"lowest": ordered[0], "median": ordered[len(ordered) // 2], "highest": ordered[-1]}
    return {"rounds": len(figures)} | {f"{name}, {unit}": figure for name, figure in named.items()}


def _machine(results: Results) -> str:
    """Return a table with one row for each fact.

    If results come from several machines or versions, the row lists each of them.
    """
    facts: dict[str, list[str]] = {}
    for result in results.values():
        for name, value in {"taken": result["date"], **result["machine"]}.items():
            values = facts.setdefault(name, [])
            if value not in values:
                values.append(value)
    return (
        table([{"": name, " ": ", ".join(values)} for name, values in facts.items()])
        if facts
        else NOTHING
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table; its columns are the keys of the first row."""
    columns = list(rows[0])
    lines = [
        columns,
        ["---"] * len(columns),
        *([_cell(row.get(column, "")) for column in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return _number(value) if isinstance(value, int | float) else str(value).replace("|", "\\|")


def _number(value: float) -> str:
    """Format a number with three significant digits and without an exponent."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
