"""The benchmarks can be run, and their page shows the stored results.

These tests measure nothing.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from benchmarks import NAMES, ftp_servers
from benchmarks import __main__ as command_line
from benchmarks.page import page, read, write
from benchmarks.processes import ended, wait_until
from benchmarks.report import Budget, Report, ratio
from benchmarks.statements import slow
from core.ledger import pruning

ROOT = Path(__file__).parents[2]
TAKEN = {"quick": False, "date": "2026-01-02", "machine": {"CPU": "Abacus", "cores": "2"}}


def result(name: str, figure: float, **more: Any) -> dict[str, Any]:
    """Return a stored result of a benchmark whose budget is at least 1.5."""
    budgets = [Budget("ratio to the peer", figure, at_least=1.5)]
    details = {"growth": [{"rows": 10_000, "ratio": 0.75}], "memory": [(0.1, 2.0, 3.0)]}
    report = Report(
        name, "tasks/s", [3_000.0, 3_100.0], [2_000.0, 2_000.0], "the peer", budgets, details
    )
    return report.data() | TAKEN | more


def row(text: str, name: str) -> str:
    """Return the row of the first table that names this benchmark."""
    return next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))


def test_help_lists_every_benchmark() -> None:
    command = [sys.executable, "-m", "benchmarks", "--help"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^  ([a-z]+) {2,}\S", said.split("benchmarks:\n", 1)[1], re.MULTILINE)
    assert listed == [*NAMES, "all", "page"]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_can_be_run(name: str) -> None:
    tree = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text("utf-8"))
    (run,) = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run"
    ]
    assert [argument.arg for argument in run.args.args] == ["bed", "options"]


def test_the_ratio_compares_rounds_in_pairs() -> None:
    # The machine was three times slower in the second round, for both.
    assert ratio([300.0, 100.0, 290.0], [150.0, 50.0, 145.0]) == 2.0


@pytest.mark.parametrize(("figure", "met"), [(1.5, True), (1.49, False)])
def test_a_budget_with_a_lower_bound_is_met_from_the_bound(figure: float, met: bool) -> None:
    assert Budget("ratio", figure, at_least=1.5).met is met


@pytest.mark.parametrize(("figure", "met"), [(0.5, True), (0.51, False)])
def test_a_budget_with_an_upper_bound_is_met_up_to_the_bound(figure: float, met: bool) -> None:
    assert Budget("ratio", figure, at_most=0.5).met is met


def test_the_page_judges_each_budget() -> None:
    text = page({"chain": result("chain", 1.6), "celery": result("celery", 1.4)})
    assert "**1.6**" in row(text, "chain")
    assert row(text, "chain").endswith("| met |")
    assert "**1.4**" in row(text, "celery")
    assert row(text, "celery").endswith("| **missed** |")
    assert "Abacus" in text
    assert "| 10,000 | 0.75 |" in text


def test_the_page_marks_benchmarks_that_were_not_measured() -> None:
    assert "Not measured" in row(page({"chain": result("chain", 1.6)}), "size")


@pytest.mark.parametrize("quick", [True, False])
def test_the_page_warns_of_smoke_checks(quick: bool) -> None:
    text = page({"chain": result("chain", 1.6, quick=quick)})
    assert ("smoke check" in text) is quick
    assert row(text, "chain").endswith("| not judged |") is quick


def test_the_page_shows_the_existing_pictures() -> None:
    text = page({"claim": result("claim", 1.6)}, {"claim"})
    assert re.findall(r"!\[.*?\]\((.*?)\)", text) == ["performance/claim.svg"]


def test_the_page_in_the_docs_matches_the_stored_results() -> None:
    shown = ROOT / "docs" / "explanation" / "performance.md"
    pictures = {picture.stem for picture in (shown.parent / "performance").glob("*.svg")}
    assert page(read(ROOT / "benchmarks" / "results"), pictures) == shown.read_text("utf-8"), (
        "run: nox -s bench"
    )


def test_a_picture_is_drawn_for_each_plot_in_the_docs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="only the group `bench` installs matplotlib")
    write(ROOT / "benchmarks" / "results", tmp_path)
    drawn = {picture.stem for picture in (tmp_path / "performance").glob("*.svg")}
    assert drawn == {
        picture.stem for picture in (ROOT / "docs" / "explanation" / "performance").glob("*.svg")
    }


def test_cases_that_were_not_measured_keep_their_stored_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(ours: float, *cases: str, memory: float) -> dict[str, Any]:
        budgets = [{"what": f"{case}: time", "figure": ours, "met": True} for case in cases]
        return {
            "ours": ours, "peer": 1, "ratio": ours, "rounds": {"ours": [ours], "peer": [1]},
            "budgets": [*budgets, {"what": "memory", "figure": memory, "met": True}],
            "details": {"cases": [{"": case, "ours": ours} for case in cases]}, "seconds": 10,
        }  # fmt: skip

    monkeypatch.setattr(command_line, "RESULTS", tmp_path)
    assert command_line.completed("ftp", measured(3, "b", memory=7)) == measured(3, "b", memory=7)
    command_line.keep("ftp", measured(9, "a", "b", memory=8))
    found = command_line.completed("ftp", measured(3, "b", "c", memory=7))
    assert found["details"]["cases"] == [
        {"": "a", "ours": 9}, {"": "b", "ours": 3}, {"": "c", "ours": 3},
    ]  # fmt: skip
    assert {budget["what"]: budget["figure"] for budget in found["budgets"]} == {
        "a: time": 9, "b: time": 3, "memory": 8, "c: time": 3,
    }  # fmt: skip
    assert (found["ours"], found["ratio"], found["seconds"]) == (9, 9, 20)
    assert command_line.completed("ftp", measured(2, "a", memory=9))["ours"] == 2


def test_slow_statements_are_named_after_their_constants() -> None:
    over_limit = pruning.OVER_LIMIT.replace("%s::uuid, %s::text", "$1::uuid, $2::text")
    indented = over_limit.replace("%%", "%").replace("\n", "\n\t")
    log = (
        "2026-01-02 [7] LOG:  checkpoint complete\n"
        f"2026-01-02 [8] LOG:  duration: 123.456 ms  execute _pg3_0: {indented}\n"
        "2026-01-02 [8] DETAIL:  Parameters: $1 = '100'\n"
        "2026-01-02 [9] LOG:  duration: 101.000 ms  statement: COMMIT\n"
    )
    assert slow(log) == [("ledger.pruning.OVER_LIMIT", 123.456), ("COMMIT", 101.0)]


def test_each_server_of_the_benchmark_has_an_address_of_its_own() -> None:
    addresses = [ftp_servers._new_address() for _ in range(600)]
    assert len(set(addresses)) == 600
    assert all(ip_address(address).is_loopback for address in addresses)


def test_a_program_that_has_ended_is_noticed_immediately() -> None:
    """The check may be repeated, and does not consume the exit code that `program` waits for."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as program:
        assert not ended(program.pid)
        assert program.stdin is not None
        program.stdin.write(b"\n")
        program.stdin.close()
        wait_until(lambda: ended(program.pid), "the program ends")
        assert ended(program.pid)
        assert program.wait() == 0
