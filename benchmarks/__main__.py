"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from benchmarks.report import Report, describe_machine

NAMES = {"chain": "tasks/s of a durable recursive tree, against a chain of two no-op actors of bare Dramatiq"}


def main() -> int:
    """Run one benchmark and print what it measured; with --json the last line is one object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "name", choices=[*NAMES, "all"], help="; ".join(f"{name}: {text}" for name, text in NAMES.items())
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object, last")
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (default: 3)")
    arguments = parser.parse_args()
    print(describe_machine(), file=sys.stderr)
    for name in NAMES if arguments.name == "all" else [arguments.name]:
        report: Report = importlib.import_module(f"benchmarks.{name}").run(arguments.rounds)
        print(report.text())
        if arguments.json:
            print(json.dumps(report.data()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
