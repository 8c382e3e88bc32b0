"""The catalogue of errors, compared with the reference and with the code that raises them."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import pytest
from typer.main import get_command

from core import errors
from core.cli.app import build
from core.error_catalog import ADVICE, CATALOG, PARTS, Steps
from core.error_catalog.entry import Surface

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core"
SOURCES = sorted(path for path in CORE.rglob("*.py") if "error_catalog" not in path.parts)
SURFACES: tuple[Surface, ...] = ("cli", "rest", "dashboard")
ERRORS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.PollingError)
} | {"HttpProblem", "DiskFull", "ProviderUnavailable"}
STATUSES = {
    "NotFound": {404},
    "WrongState": {409, 412},
    "InvalidInput": {410, 422},
    "InvalidFields": {422},
    "Refused": {403},
    "ServerUnavailable": {503},
    "DiskFull": {503},
    "ProviderUnavailable": {502, 503},
    "StateContended": {503},
    "SettingsError": {500},
    "VaultError": {409, 500},
    "PollingError": {500, 502},
}
"""The statuses that the class of an error allows; `HttpProblem` allows any."""
NAMES: frozenset[str] = frozenset(get_command(build()).commands)  # type: ignore[attr-defined]
"""The names of all commands."""

COMMANDS = rf"\bpolling ({'|'.join(sorted(NAMES, key=len, reverse=True))})\b"


@dataclass(frozen=True)
class Site:
    """A call that makes an error or an advice."""

    place: str
    kind: str
    codes: tuple[str, ...]
    fields: frozenset[str]


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in SOURCES:
        yield path, ast.parse(path.read_text("utf-8"))


def literals(node: ast.expr) -> tuple[str, ...]:
    """Return the codes that an argument may have: a literal, or one of two."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return (node.value,)
    if isinstance(node, ast.IfExp):
        return literals(node.body) + literals(node.orelse)
    return ()


def sites(kinds: set[str]) -> Iterator[Site]:
    for path, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in kinds and not (path.name == "errors.py" and name == "Advice"):
                fields = {keyword.arg or "**" for keyword in node.keywords}
                fields -= {"part", "problems"} if name == "InvalidFields" else set()
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                codes = literals(node.args[0]) if node.args else ()
                yield Site(place, name, codes, frozenset(fields))


RAISED = list(sites(ERRORS))


def placeholders(*templates: str) -> set[str]:
    return {
        re.split(r"[.\[]", name)[0]
        for template in templates
        for _, name, _, _ in Formatter().parse(template)
        if name is not None
    }


def fields_of(code: str) -> set[str]:
    entry = CATALOG[code]
    return placeholders(entry.message, *(entry.steps.on(surface) for surface in SURFACES))


def every_steps() -> Iterator[tuple[str, Steps]]:
    yield from ((code, entry.steps) for code, entry in CATALOG.items())
    yield from ADVICE.items()


def test_each_code_is_defined_once() -> None:
    assert sum(len(part) for part in PARTS.values()) == len(CATALOG)
    assert not set(CATALOG) & set(ADVICE)


def test_codes_are_words_and_dashes() -> None:
    assert [
        code for code in (*CATALOG, *ADVICE) if not re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
    ] == []


@pytest.mark.parametrize("site", RAISED, ids=lambda site: site.place)
def test_each_site_names_a_code_and_exactly_its_fields(site: Site) -> None:
    assert site.codes, f"{site.place}: give the code as a literal"
    for code in site.codes:
        assert code in CATALOG, f"{site.place}: {code} is not in the catalogue"
        assert site.fields == fields_of(code), f"{site.place}: {code}"
        allowed = STATUSES.get(site.kind)
        assert allowed is None or CATALOG[code].status in allowed, f"{site.place}: {code}"


def test_each_code_is_raised_somewhere() -> None:
    assert set(CATALOG) - {code for site in RAISED for code in site.codes} == set()


def test_each_advice_is_given_somewhere_with_its_fields() -> None:
    text = "".join(path.read_text("utf-8") for path in SOURCES)
    assert [code for code in ADVICE if f'"{code}"' not in text] == []
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Advice":
                for code in literals(node.args[0]):
                    given = node.args[1] if len(node.args) > 1 else ast.Dict([], [])
                    assert isinstance(given, ast.Dict)
                    names = {ast.literal_eval(key) for key in given.keys if key is not None}
                    steps = ADVICE[code]
                    assert names == placeholders(*(steps.on(one) for one in SURFACES)), path


def test_each_entry_has_a_status_a_plain_message_and_three_next_steps() -> None:
    for code, entry in CATALOG.items():
        assert 400 <= entry.status < 600, code
        assert entry.message, code
        assert not entry.message.endswith("."), code
        assert "\n" not in entry.message, code
    for code, steps in every_steps():
        for surface in SURFACES:
            text = steps.on(surface)
            assert text, f"{code} has no next step for {surface}"
            assert not text.endswith("."), f"{code}, {surface}"
            assert "\n" not in text, f"{code}, {surface}"


def test_only_next_steps_of_the_cli_name_commands_and_options() -> None:
    for code, steps in every_steps():
        for text in (steps.step, steps.rest, steps.dashboard):
            assert "polling " not in text, code
            assert "--" not in text, code
    assert [code for code, entry in CATALOG.items() if re.search(COMMANDS, entry.message)] == []


def test_next_steps_of_the_cli_name_commands_that_exist() -> None:
    told = {
        name
        for _, steps in every_steps()
        for name in re.findall(r"\bpolling ([a-z-]+)", steps.on("cli"))
    }
    assert len(told) > 10
    assert told - NAMES == set()


def test_next_steps_of_the_api_name_routes_that_exist() -> None:
    paths = runpy.run_path(str(ROOT / "docs" / "reference" / "generate.py"))["document"]()["paths"]
    known = {
        (method.upper(), re.sub(r"\{.*?\}", "{}", path))
        for path, methods in paths.items()
        for method in methods
    } | {("GET", "/openapi.json")}
    told = {
        (method, re.sub(r"\{.*?\}+", "{}", path.replace("{{", "{")))
        for _, steps in every_steps()
        for method, path in re.findall(r"\b(GET|POST|PATCH|DELETE) (/\S+)", steps.on("rest"))
    }
    assert len(told) > 5
    assert told - known == set()


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield all string constants without docstrings and descriptions of attributes."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documents
        ):
            yield node.lineno, node.value


def test_no_text_below_the_command_line_names_a_command() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path, tree in trees()
        if not {"cli", "demo"} & set(path.relative_to(CORE).parts)
        for line, text in texts(tree)
        if re.search(COMMANDS, text)
    ]
    found += [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in CORE.rglob("*.html")
        for match in re.finditer(COMMANDS, path.read_text("utf-8"))
    ]
    assert found == []


def test_the_catalogue_imports_nothing_of_the_engine() -> None:
    for path in (CORE / "error_catalog").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").startswith(
                    ("__future__", "collections", "dataclasses", "typing", "core.error_catalog")
                ), path


def test_only_the_surfaces_render_next_steps() -> None:
    """All other modules raise an error as a code with fields."""
    above = ("cli", "rest", "web", "dashboard", "actors.py", "errors.py")
    asking = {
        path.relative_to(CORE).parts[0]
        for path in SOURCES
        if ".next_step(" in path.read_text("utf-8")
    }
    assert asking <= set(above)


def test_the_reference_of_errors_is_up_to_date() -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "reference" / "generate.py"))
    page = (ROOT / "docs" / "reference" / "errors.md").read_text("utf-8")
    assert generator["render_errors"]() == page, "run: python docs/reference/generate.py"


def test_an_error_is_one_sentence_and_a_next_step_for_each_surface() -> None:
    error = errors.NotFound("account-not-found", account="{shop}")
    assert str(error) == "account {shop} not found"
    assert (error.status, error.code) == (404, "account-not-found")
    assert error.next_step("cli") == "List accounts: polling accounts"
    assert error.next_step("rest") == "List accounts: GET /v1/user-integrations"
    assert error.advice.next_step("cli") == error.next_step("cli")


def test_a_code_that_does_not_exist_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        errors.PollingError("no-such-code")
