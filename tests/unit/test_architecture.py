"""ARCHITECTURE.md names the place of everything, and lists every statement that writes a table.

The test parses the files; it does not import them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("core/**/*.py"))

QUESTIONS = (
    "the statement that ends a run",
    "where a new command goes",
    "where the backoff of a retry is computed",
    "where a content row is written",
    "how to add a config field to the Slack plugin",
    "where rate limits are enforced",
)
"""Questions that a newcomer has to answer within a minute."""

ANSWER = re.compile(r"^\| (?P<question>[^|]+) \| `(?P<file>[\w/.-]+)` \| `(?P<symbol>[\w.]+)` \|")
WRITER = re.compile(
    r"^\| `(?P<table>\w+): (?P<writes>[\w ,…]+)` \| `(?P<file>[\w/.]+)` \| `(?P<symbol>[\w.]+)` \|$"
)

WRITE = re.compile(
    r"\b(?P<verb>INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO|TRUNCATE(?:\s+TABLE)?|COPY)\s+"
    r"(?:ONLY\s+)?(?:\w+\.)?\"?(?P<table>\w+)\"?"
    r"(?P<set>(?:\s+(?:AS\s+)?(?!SET\b)\w+)?\s+SET\b)?",
    re.IGNORECASE,
)
UPSERT = re.compile(r"\bDO\s+UPDATE\b", re.IGNORECASE)
END_OF_SET = re.compile(r"(?:FROM|WHERE|RETURNING)\b", re.IGNORECASE)
MAX_COLUMNS_CHARS = 18
"""The maximum length of the list of updated columns.

The list has as many of the first columns as fit, at least one, and then `…`.
"""

UNRESOLVED = "unresolved"
"""Replaces a value in an f-string that is not a named piece of SQL, such as a state."""


MODULE_LISTED = re.compile(r"(?:^ *|  +)([a-z_]+) {2,}(?=\S)", re.MULTILINE)
"""A module in the docstring of its package: its name, two or more spaces, and a description."""

TABLES = {
    name
    for path in (ROOT / "core" / "db" / "schema").glob("*.py")
    for name in re.findall(r'Table\(\s*"(\w+)"', path.read_text("utf-8"))
}


@cache
def parse(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text("utf-8"))


def file_of(module: str) -> str | None:
    """Return the file of a dotted module of this repository."""
    path = module.replace(".", "/")
    files = (f"{path}.py", f"{path}/__init__.py")
    return next((file for file in files if (ROOT / file).exists()), None)


def targets(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a module or a class defines."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=names):
            return [name.id for name in names if isinstance(name, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def symbols(file: str) -> set[str]:
    """Return the top-level symbols of a file, and `Class.member` of its classes."""
    names = set()
    for node in parse(file).body:
        names.update(targets(node))
        if isinstance(node, ast.ClassDef):
            names.update(f"{node.name}.{name}" for part in node.body for name in targets(part))
    return names


def constant(name: str, file: str) -> tuple[ast.expr, str] | None:
    """Return the expression of a constant that a module defines or imports, and its file."""
    for node in parse(file).body:
        match node:
            case ast.Assign(value=value) if name in targets(node):
                return value, file
            case ast.ImportFrom(module=str(module), names=aliases):
                source = file_of(module)
                for alias in aliases:
                    if source and source != file and name == (alias.asname or alias.name):
                        return constant(alias.name, source)
    return None


def text_of(node: ast.AST, file: str) -> str | None:
    """Return the text of a string or f-string, with the constants that it inserts."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(text_of(value, file) or UNRESOLVED for value in values)
        case ast.FormattedValue(value=ast.Name(id=name)):
            definition = constant(name, file)
            return text_of(*definition) if definition else None
    return None


def assigned(text: str) -> list[str]:
    """Return the columns that a SET clause assigns, in its order."""
    columns, depth, start = [], 0, True
    for token in re.finditer(r"--[^\n]*|'[^']*'|[(),]|\w+", text):
        word = token[0]
        if word == "(":
            depth += 1
        elif word == ")":
            depth -= 1
        elif word == "," and depth == 0:
            start = True
        elif start and word[0] not in "-'":
            columns.append(word)
            start = False
        if depth < 0 or (depth == 0 and END_OF_SET.match(word)):
            break
    return columns


def shortened(columns: list[str]) -> str:
    """Return the first columns that fit into a row of the index."""
    for count in range(len(columns), 1, -1):
        listed = ", ".join(columns[:count])
        if len(listed) <= MAX_COLUMNS_CHARS:
            return listed + ", …" * (count < len(columns))
    return ", ".join(columns[:1]) + ", …" * (len(columns) > 1)


def strings(node: ast.AST, file: str) -> Iterator[str]:
    """Yield each string of a statement, an f-string as one."""
    text = text_of(node, file)
    if text is not None:
        yield text
        return
    for child in ast.iter_child_nodes(node):
        yield from strings(child, file)


def writes_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield the table and the kind of each write in a statement."""
    for match in WRITE.finditer(text):
        verb, table = match["verb"].split()[0].lower(), match["table"]
        if table not in {*TABLES, UNRESOLVED}:
            continue
        if verb == "update" and match["set"]:
            yield table, f"update {shortened(assigned(text[match.end() :]))}"
        elif verb == "insert":
            yield table, "upsert" if UPSERT.search(text, match.end()) else "insert"
        elif verb != "update":
            yield table, verb


def writers(file: str) -> set[str]:
    """Return the rows of the index for a module: (table, kind, file, symbol) of each write."""
    rows = set()
    for node in parse(file).body:
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for part in node.body if isinstance(node, ast.ClassDef) else [node]:
            symbol = prefix + (targets(part) or ["?"])[0]
            for text in strings(part, file):
                rows |= {
                    f"| `{table}: {kind}` | `{file}` | `{symbol}` |"
                    for table, kind in writes_of(text)
                }
    return rows


def answers() -> list[re.Match[str]]:
    return [match for line in PAGE.splitlines() if (match := ANSWER.match(line))]


@pytest.mark.parametrize("question", QUESTIONS)
def test_architecture_md_answers_the_question_of_a_newcomer(question: str) -> None:
    assert question in [answer["question"] for answer in answers()]


def test_every_answer_names_a_symbol_that_exists() -> None:
    assert len(answers()) > len(QUESTIONS)
    assert not [
        f"{answer['file']}: {answer['symbol']}"
        for answer in answers()
        if not (ROOT / answer["file"]).exists() or answer["symbol"] not in symbols(answer["file"])
    ]


def test_every_question_has_an_answer_in_the_right_form() -> None:
    section = PAGE.split("## Where is …", 1)[1].split("\n## ", 1)[0]
    rows = [
        line for line in section.splitlines() if line.startswith("| ") and "| File |" not in line
    ]
    assert [row for row in rows if not ANSWER.match(row)] == []


def test_the_index_of_writers_lists_exactly_the_statements_of_core() -> None:
    """On failure, add the missing rows to ARCHITECTURE.md and delete the others."""
    listed = [line for line in PAGE.splitlines() if WRITER.match(line)]
    written = set().union(*map(writers, MODULES))
    assert len(written) > 90
    assert {
        "missing": sorted(written - {*listed}),
        "no longer true": sorted({*listed} - written),
    } == {
        "missing": [],
        "no longer true": [],
    }
    assert len(listed) == len({*listed})


def test_every_part_has_its_paragraph_in_the_order_of_importlinter() -> None:
    contracts = ConfigParser()
    contracts.read(ROOT / ".importlinter")
    layers = contracts["importlinter:contract:layers"]["layers"]
    section = PAGE.split("## The parts, from top to bottom", 1)[1].split("\n## ", 1)[0]
    parts = re.findall(r"^\*\*(`\w+`(?: \| `\w+`)*)\*\*", section, re.MULTILINE)
    assert [part.replace("`", "") for part in parts] == [
        line.strip("()") for line in layers.split("\n") if line
    ]


@pytest.mark.parametrize("package", [file for file in MODULES if file.endswith("__init__.py")])
def test_a_package_lists_modules_that_exist(package: str) -> None:
    folder = (ROOT / package).parent
    names = MODULE_LISTED.findall(ast.get_docstring(parse(package)) or "")
    assert not [
        name
        for name in names
        if not (folder / f"{name}.py").exists() and not (folder / name).is_dir()
    ]


@pytest.mark.parametrize("package", ["core/ledger", "core/transport"])
def test_a_package_lists_all_of_its_modules(package: str) -> None:
    listed = set(MODULE_LISTED.findall(ast.get_docstring(parse(f"{package}/__init__.py")) or ""))
    assert {path.stem for path in (ROOT / package).glob("[!_]*.py")} <= listed


def test_the_index_of_writers_is_grouped_by_table() -> None:
    tables = [match["table"] for line in PAGE.splitlines() if (match := WRITER.match(line))]
    changes = [
        table for table, before in zip(tables, ["", *tables], strict=False) if table != before
    ]
    assert len(changes) == len({*changes})
    assert {*changes} == TABLES


@pytest.mark.parametrize(
    ("statement", "writes"),
    [
        ("INSERT INTO sync_run (id) VALUES (1)", [("sync_run", "insert")]),
        ("insert into sync_run (id) values (1)", [("sync_run", "insert")]),
        ('DELETE FROM ONLY public."blob" WHERE key = 1', [("blob", "delete")]),
        ("INSERT INTO blob AS b (key) VALUES (1) ON CONFLICT DO NOTHING", [("blob", "insert")]),
        ("INSERT INTO blob (key) VALUES (1) ON CONFLICT (key) DO UPDATE SET size = 1",
         [("blob", "upsert")]),
        ("UPDATE sync_task t SET state = f(a, b), errors = (SELECT 1 FROM x) FROM y WHERE t.id = 1",
         [("sync_task", "update state, errors")]),
        ("WITH a AS (UPDATE process SET draining = true), b AS (DELETE FROM blob) SELECT 1",
         [("process", "update draining"), ("blob", "delete")]),
        ("UPDATE blob SET -- why, and how\n size = 1, touched_at = 'a, b = c', x = 2 RETURNING y",
         [("blob", "update size, touched_at, …")]),
        ("SELECT id FROM sync_run FOR UPDATE", []),
        ("TRUNCATE TABLE sync_seen", [("sync_seen", "truncate")]),
        ("MERGE INTO sync_state AS s USING x ON true", [("sync_state", "merge")]),
        ("COPY sync_task (id) FROM STDIN", [("sync_task", "copy")]),
        ("UPDATE unresolved SET a = 1", [("unresolved", "update a")]),
    ],
)  # fmt: skip
def test_the_index_finds_every_kind_of_write(statement: str, writes: list[tuple[str, str]]) -> None:
    assert list(writes_of(statement)) == writes
