"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import NAMES
from benchmarks.report import Options, Report

RESULTS = Path(__file__).parent / "results"


def main(words: list[str] | None = None) -> int:
    """Run benchmarks and print their results, or write the page from the stored results."""
    arguments = _parser().parse_args(words)
    if arguments.name == "page":
        from benchmarks.page import write

        print(f"Wrote {write(RESULTS)}")
        return 0
    # On SIGTERM, stop the servers and workers too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    options = Options(
        arguments.rounds or (1 if arguments.quick else 3),
        arguments.quick,
        arguments.rows,
        arguments.only,
        arguments.scale,
        arguments.minutes,
    )
    for name in NAMES if arguments.name == "all" else [arguments.name]:
        result, text = measure(name, options, arguments.folder)
        print(text, flush=True)
        if arguments.keep:
            keep(
                name,
                completed(name, result)
                if arguments.only and "cases" in result["details"]
                else result,
            )
        if arguments.json:
            print(json.dumps(result), flush=True)
    return 0


def measure(name: str, options: Options, folder: Path | None = None) -> tuple[dict[str, Any], str]:
    """Run one benchmark on servers of its own, and return its result as JSON and as text.

    Args:
      name: The name of the benchmark.
      options: The options of the command line.
      folder: The folder where the servers' data stay. Default: they are deleted at the end.
    """
    # Imported here, so that `--help` and `page` need no servers and no peers.
    from benchmarks.engine import testbed
    from benchmarks.machine import describe, one_line

    begun = time.monotonic()
    with testbed(folder) as bed:
        machine = describe(bed.urls)
        print(one_line(machine), file=sys.stderr)
        report: Report = importlib.import_module(f"benchmarks.{name}").run(bed, options)
    taken = {
        "quick": options.quick,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine,
    }
    return report.data() | taken | {"seconds": round(time.monotonic() - begun)}, report.text()


def completed(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """Return a result with the stored cases that `--only` left out.

    A figure about all cases, such as the largest memory, is the worse one.
    """
    path = RESULTS / f"{name}.json"
    stored = json.loads(path.read_text("utf-8")) if path.exists() else None
    if stored is None:
        return result
    measured = {case[""]: case for case in result["details"]["cases"]}
    cases = {case[""]: case for case in stored["details"]["cases"]} | measured
    budgets = {budget["what"]: budget for budget in stored["budgets"]}
    for budget in result["budgets"]:
        before = budgets.get(budget["what"])
        is_own = any(budget["what"].startswith(f"{case}:") for case in measured)
        if is_own or before is None or budget["figure"] > before["figure"]:
            budgets[budget["what"]] = budget
    first = result if next(iter(cases)) in measured else stored
    return result | {
        **{key: first[key] for key in ("ours", "peer", "ratio", "rounds")},
        "budgets": list(budgets.values()),
        "details": result["details"] | {"cases": list(cases.values())},
        "seconds": stored["seconds"] + result["seconds"],
    }


def keep(name: str, result: dict[str, Any]) -> None:
    """Write a result to the folder that `page` reads, with one line for each key."""
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in result.items()
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def _parser() -> argparse.ArgumentParser:
    extra = {
        "all": "every benchmark",
        "page": "write docs/explanation/performance.md from the stored results",
    }
    listing = "\n".join(f"  {name:<14} {text}" for name, text in {**NAMES, **extra}.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"benchmarks:\n{listing}",
    )
    parser.add_argument(
        "name", choices=[*NAMES, "all", "page"], metavar="NAME", help="a name from the list below"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result as one JSON object after the text"
    )
    parser.add_argument(
        "--keep", action="store_true", help="store the result in benchmarks/results, for the page"
    )
    parser.add_argument(
        "--rounds", type=int, help="number of alternating rounds (default: 3; with --quick: 1)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="use tiny sizes: check that the benchmark works, not its figures",
    )
    parser.add_argument(
        "--rows", type=int, help="rows in the largest table of `upsert` (default: 500,000)"
    )
    parser.add_argument(
        "--only",
        default="",
        help="measure only the cases of `ftp`, the forms of `polls` or the parts of `slack` whose"
        " name contains this text; `--keep` keeps the stored others of `ftp`",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="size of `polls` and speed of the clock of `slack`, relative to the full one",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="a folder for the servers' data, which stay; `polls` continues there in a later call",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="begin no step of `polls` that would end later; post no later message in `slack`",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
