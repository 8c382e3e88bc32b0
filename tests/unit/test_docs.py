"""The documentation is complete, and describes nothing that does not exist."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import core
from core.cli.app import build
from core.db.clocks import ALIVE_SECONDS
from core.db.schema import metadata
from core.dispatcher.maintenance import STAND_IN_TICKS
from core.errors import IntegrationError, ResultInvalid
from core.hookspecs import Hooks
from core.service.fleet import liveness
from core.settings import Settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins-*/README.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
PROSE = [*PAGES, *sorted(ROOT.glob("benchmarks/*.md"))]
FILE = re.compile(
    r"(?<![\w/.-])(?:(?:core|docs|migrations|tests|benchmarks|deploy)/|plugins-[a-z-]+/)[\w/.*-]*[\w*]"
)
MODULE = re.compile(r"(?<![\w/.-])core(?:\.[A-Za-z_]\w*)+")
SYMBOL = re.compile(r"`(\w+)`\s+in\s+`(core/[\w/]+\.py)`")
CREATED = {"deploy/.env"}
"""Files that a reader creates."""

NOT_YET = "not there yet"


def read(name: str) -> str:
    return (REFERENCE / name).read_text("utf-8")


def missing(names: Any, page: str) -> list[str]:
    """Return the names that are not in backticks on the page."""
    words = set(re.findall(r"[\w/-]+", " ".join(re.findall(r"`([^`\n]+)`", page))))
    return sorted(name for name in names if name not in words)


def spans(page: Path) -> list[str]:
    """Return the texts in backticks on a page, outside of fenced code."""
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`]+)`", prose)


@cache
def names_of_tests() -> set[str]:
    """Return the names of all modules and functions with tests."""
    files = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("plugins-*/tests/**/test_*.py")]
    functions = [re.findall(r"def (test_\w+)", file.read_text("utf-8")) for file in files]
    return {file.stem for file in files}.union(*functions)


def is_module(dotted: str) -> bool:
    """Return True if this names a module, a package, or a name in one."""
    path = ROOT / dotted.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    parent = path.parent
    source = parent / "__init__.py" if parent.is_dir() else parent.with_suffix(".py")
    return source.exists() and re.search(rf"\b{path.name}\b", source.read_text("utf-8")) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    targets = [target for target, _ in LINK.findall(page.read_text("utf-8")) if "://" not in target]
    assert not [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_in_the_docs_exist(page: Path) -> None:
    named = [path for span in spans(page) for path in FILE.findall(span) if path not in CREATED]
    assert not [path for path in named if not any([*ROOT.glob(path), *page.parent.glob(path)])]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_named_in_the_docs_exist(page: Path) -> None:
    named = [module for span in spans(page) for module in MODULE.findall(span)]
    assert not [module for module in named if not is_module(module)]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_named_in_the_docs_exist(page: Path) -> None:
    named = {span for span in spans(page) if re.fullmatch(r"test_\w+", span)}
    assert not sorted(named - names_of_tests())


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_symbols_named_with_their_file_exist(page: Path) -> None:
    named = SYMBOL.findall(page.read_text("utf-8"))
    assert not [
        f"{path}: {name}"
        for name, path in named
        if not re.search(rf"\b{name}\b", (ROOT / path).read_text("utf-8"))
    ]


def test_every_setting_is_documented() -> None:
    names = [
        str(field.validation_alias or f"POLLING_{name.upper()}")
        for name, field in Settings.model_fields.items()
    ]
    assert not missing(names, read("settings.md"))


def test_every_setting_named_in_the_docs_exists() -> None:
    names = {
        str(field.validation_alias or f"POLLING_{name.upper()}")
        for name, field in Settings.model_fields.items()
    }
    pages = [*PAGES, ROOT / "docs" / "reference" / "settings.md"]
    named = {
        name
        for page in pages
        for name in re.findall(r"\bPOLLING_[A-Z_]+\b", page.read_text("utf-8"))
    }
    assert not named - names


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command of the command line."""
    below = getattr(command, "commands", {})
    if path and (not below or command.invoke_without_command):
        yield path
    for name, child in below.items():
        if not child.hidden:
            yield from commands(child, (*path, name))


def documented(page: str) -> set[tuple[str, ...]]:
    """Return the commands in the tables of a page.

    Two of them may share a cell: `polling tasks` · `show ID`.
    """
    found = set()
    for cell in re.findall(r"^\| (`polling [^|]*)\|", page, re.MULTILINE):
        group: list[str] = []
        for said in re.findall(r"`([^`]+)`", cell):
            words = re.match(r"[a-z -]*", said)
            assert words
            name = words[0].split()
            group, name = (
                (name[1:], name[1:]) if name[:1] == ["polling"] else (group, [*group[:1], *name])
            )
            found.add(tuple(name))
    return found


def test_every_command_is_documented() -> None:
    assert not sorted(set(commands(get_command(build()))) - documented(read("commands.md")))


def test_every_command_in_the_reference_exists() -> None:
    page = read("commands.md")
    coming = documented("\n".join(line for line in page.splitlines() if NOT_YET in line))
    there = set(commands(get_command(build())))
    assert not sorted(documented(page) - coming - there)
    assert not sorted(coming & there), f"these commands exist: do not call them {NOT_YET!r}"


def test_every_hook_is_documented() -> None:
    page = read("plugin-api.md")
    for name, function in inspect.getmembers(Hooks, inspect.isfunction):
        arguments = ", ".join(list(inspect.signature(function).parameters)[1:])
        assert f"`{name}({arguments})`" in page, name


@pytest.mark.parametrize(
    "described", [core.Manifest, core.Task, core.TaskOutput, core.TaskResult, core.OAuth]
)
def test_every_field_is_documented(described: Any) -> None:
    assert not missing(
        [field.name for field in dataclasses.fields(described)], read("plugin-api.md")
    )


def test_every_method_of_an_integration_is_documented() -> None:
    names = [
        name
        for name, _ in inspect.getmembers(core.BaseIntegration, inspect.isroutine)
        if name[0] != "_"
    ]
    page = read("plugin-api.md")
    assert not [name for name in names if name != "run_task" and f"`{name}(" not in page]


def test_every_exception_is_documented() -> None:
    errors = [
        error.__name__ for error in IntegrationError.__subclasses__() if error is not ResultInvalid
    ]
    assert not [name for name in errors if f"`{name}" not in read("plugin-api.md")]


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_every_table_is_documented(table: str) -> None:
    page = read("tables.md")
    assert f"**`{table}`**" in page
    section = page.split(f"**`{table}`**", 1)[1].split("\n**`", 1)[0]
    assert not missing([column.name for column in metadata.tables[table].columns], section)


@pytest.mark.parametrize(
    "record", sorted(ROOT.glob("docs/decisions/*.md")), ids=lambda path: path.stem
)
def test_a_decision_has_all_its_parts(record: Path) -> None:
    text = record.read_text("utf-8")
    assert re.match(rf"# 0*{int(record.name[:4])}\b", text)
    for part in (
        "Context",
        "Decision",
        "Consequences",
        "Alternatives",
        "(What enforces|Enforced by)",
    ):
        assert re.search(rf"^(\*\*|## ){part}", text, re.MULTILINE), part


@pytest.mark.parametrize("session", ["demo", "tests"])
def test_the_readme_shows_each_command_in_one_line(session: str) -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert (
        f"python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox -s {session}" in lines
    )


def test_the_glossary_is_in_alphabetical_order() -> None:
    words = re.findall(r"^\*\*(.+?)\*\*", read("glossary.md"), re.MULTILINE)
    assert len(words) > 30
    assert words == sorted(words, key=str.lower)


def test_the_reference_of_the_api_is_up_to_date() -> None:
    import runpy

    generator = runpy.run_path(str(REFERENCE / "generate.py"))
    text = generator["render"](generator["document"]())
    assert text == read("api.md"), "run: python docs/reference/generate.py"


def test_the_states_and_their_glossary_are_in_step_with_the_code() -> None:
    import runpy

    generator = runpy.run_path(str(REFERENCE / "generate.py"))
    assert generator["render_states"]() == read("states.md"), (
        "run: python docs/reference/generate.py"
    )
    glossary = read("glossary.md")
    assert generator["render_glossary"](glossary) == glossary
    assert not [title for title in generator["WORDS"] if f"**{title}** " not in glossary]


def test_monitoring_states_the_numbers_of_the_definitions() -> None:
    page = (ROOT / "docs" / "how-to" / "monitor.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (alive|silent|overdue) \| (.*) \|$", page, re.MULTILINE))
    ticks, minutes = liveness.SILENT_TICKS, liveness.silent_after_seconds(Settings()) / 60
    stated = {
        "alive": [f"younger than {ALIVE_SECONDS:g} s"],
        "silent": [
            f"for {ticks:g} of its intervals: {minutes:g} min by default",
            f"After {STAND_IN_TICKS:g} intervals",
        ],
        "overdue": [
            f"{liveness.OVERDUE_INTERVALS:g} of the account's interval",
            f"{ticks:g} of the scheduler's",
        ],
    }
    for word, texts in stated.items():
        assert [text for text in texts if text not in rows[word]] == []
    assert f"above {ticks:g} of the scheduler's interval" in page
    assert f"seen_at > now() - interval '{ALIVE_SECONDS:g} seconds'" in page
