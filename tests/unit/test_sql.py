"""SQL is composed in one way, and code never spells out a state: `core/states.py` has the words.

A statement is a module constant, written as an f-string of named fragments and words.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core import states

ROOT = Path(__file__).parents[2]
MODULES = [path for path in sorted(ROOT.glob("core/**/*.py")) if path.name != "states.py"]

WORDS = {
    str(word)
    for words in (
        states.AccountState,
        states.AccountStateReason,
        states.Lane,
        states.RunState,
        states.TaskState,
        states.Trigger,
    )
    for word in words
}
COLUMNS = {"lane", "state", "status", "status_reason", "sync_status", "trigger"}

# `'error'` is also a key in JSON: `errors->-1->>'error'`.
TYPED_OUT = re.compile(
    rf"(?<!>)'({'|'.join(sorted(WORDS - {'error'}))})'"
    rf"|\b({'|'.join(COLUMNS)})\s*(=|<>|IN)\s*\(?'error'"
)
SQL = re.compile(
    r"\b(SELECT|INSERT INTO|DELETE FROM|UPDATE \S+.* SET|WHERE|GROUP BY|ORDER BY)\b"
    r"|\bAND .* (=|<|>|IS) ",
    re.DOTALL,
)
FRAGMENT = re.compile(r"statement|\w+_COLUMNS")
"""Names of further variables that contain SQL, besides constants with a statement."""

AT_IMPORT = {
    ("core/service/pagination.py", "__post_init__"),
    ("core/ledger/quotas.py", "most"),
    ("core/service/runs/listing.py", "_in_order"),
}
"""Functions that compose statements for module constants at import."""

TEMPLATES = ROOT / "core" / "dashboard" / "templates"


def text_of(node: ast.AST) -> str | None:
    """Return the text of a string or f-string; `{}` replaces inserted values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) or "{}" for value in node.values)
    return None


def is_sql(node: ast.AST, constants: set[str]) -> bool:
    """Return True if this is a statement, a part of one, or the name of one."""
    if isinstance(node, ast.IfExp):
        return is_sql(node.body, constants) or is_sql(node.orelse, constants)
    if isinstance(node, ast.Name | ast.Attribute):
        name = name_of(node) or ""
        return name in constants or FRAGMENT.fullmatch(name) is not None
    return SQL.search(text_of(node) or "") is not None


def name_of(node: ast.AST) -> str | None:
    """Return the column that an expression reads: `run.state`, `row["state"]`, `state`."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return getattr(node, "attr", getattr(node, "id", None))


def words_in(*nodes: ast.AST | None) -> bool:
    """Return True if a word is among these expressions, or in a tuple, list or set of them."""
    constants = [one for node in nodes if node for one in (node, *getattr(node, "elts", ()))]
    return any(isinstance(one, ast.Constant) and one.value in WORDS for one in constants)


def compares_value(node: ast.Compare) -> bool:
    """Return True if the comparison is with the value of a call or an element: `row[0] == "done"`.

    A name says by itself whether it is a state: the server in `found == "ready"` has none.
    """
    is_equality = isinstance(node.ops[0], ast.Eq | ast.NotEq)
    sides = (node.left, *node.comparators)
    return is_equality and any(isinstance(side, ast.Call | ast.Subscript) for side in sides)


def typed_out(tree: ast.AST) -> Iterator[int]:  # noqa: C901  a kind of place a case
    """Yield the lines that spell out a state."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=comparators):
                sides = [left, *comparators]
                found = words_in(*sides) and (
                    any(name_of(side) in COLUMNS for side in sides) or compares_value(node)
                )
            case ast.keyword(arg=name, value=value):
                found = name in COLUMNS and words_in(value)
            case (
                ast.Assign(targets=[target], value=value)
                | ast.AnnAssign(target=target, value=value)
            ):
                found = name_of(target) in COLUMNS and words_in(value)
            case ast.arguments(args=args, kwonlyargs=named, defaults=defaults, kw_defaults=more):
                pairs = [
                    *zip(reversed(args), reversed(defaults), strict=False),
                    *zip(named, more, strict=True),
                ]
                found = any(one.arg in COLUMNS and words_in(default) for one, default in pairs)
            case ast.Dict(keys=keys, values=values):
                pairs = list(zip(keys, values, strict=True))
                found = (
                    any(key and text_of(key) in COLUMNS and words_in(value) for key, value in pairs)
                    or 1 < sum(words_in(key) for key in keys) > len(keys) / 2
                )
            case ast.MatchValue(value=value):
                found = words_in(value)
            case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=choices)):
                found = sum(words_in(choice) for choice in choices) > 1
            case ast.Constant() | ast.JoinedStr() if id(node) not in docstrings:
                found = TYPED_OUT.search(text_of(node) or "") is not None
            case _:
                continue
        if found:
            yield getattr(node, "lineno", getattr(getattr(node, "value", None), "lineno", 0))


def constants_of(tree: ast.Module) -> set[str]:
    """Return the module's constants that contain SQL."""
    return {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and is_sql(node.value, set())
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper()
    }


def assembled(tree: ast.AST, constants: set[str], file: str) -> Iterator[int]:
    """Yield the lines that compose SQL in another way than with an f-string at import."""
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(left=left, op=ast.Add() | ast.Mod(), right=right):
                if is_sql(left, constants) or is_sql(right, constants):
                    yield node.lineno
            case ast.Call(func=ast.Attribute(value=text, attr="format" | "replace")):
                if is_sql(text, constants):
                    yield node.lineno
            case ast.FunctionDef(name=name) if (file, name) not in AT_IMPORT:
                for part in ast.walk(node):
                    if isinstance(part, ast.JoinedStr) and is_sql(part, constants):
                        yield part.lineno


def found(look: Callable[[ast.Module, str], Iterator[int]]) -> list[str]:
    """Return file and line of each place in `core` that `look` finds."""
    files = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in MODULES}
    return [
        f"{file}:{line}" for file, text in files.items() for line in look(ast.parse(text), file)
    ]


def test_no_code_spells_out_a_state() -> None:
    assert not found(lambda tree, _: typed_out(tree))


def test_all_sql_is_composed_in_one_way() -> None:
    constants = {
        name for path in MODULES for name in constants_of(ast.parse(path.read_text("utf-8")))
    }
    assert not found(lambda tree, file: assembled(tree, constants, file))


def test_each_statement_has_a_name_of_its_own() -> None:
    """A search for the name of a statement finds one definition."""
    modules = defaultdict(list)
    for path in MODULES:
        for name in constants_of(ast.parse(path.read_text("utf-8"))):
            modules[name].append(path.relative_to(ROOT).as_posix())
    assert {name: files for name, files in modules.items() if len(files) > 1} == {}


def not_inserted(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of plain strings of SQL that name a fragment: the `f` is missing."""
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in parts and SQL.search(text):
                if re.search(r"\{_?[A-Z]\w*[}(.]", text):
                    yield node.lineno


def test_statements_insert_their_fragments() -> None:
    assert not found(lambda tree, _: not_inserted(tree))
    assert list(not_inserted(ast.parse('Q = "SELECT id FROM t WHERE {CONDITION}"')))


def test_no_template_spells_out_a_state() -> None:
    compared = re.compile(rf'\b({"|".join(COLUMNS)}) (==|!=|in) \(?"({"|".join(WORDS)})"')
    assert not [
        path.name for path in TEMPLATES.glob("*.html") if compared.search(path.read_text("utf-8"))
    ]


@pytest.mark.parametrize(
    "source",
    [
        'if outcome.state == "parked": ...',
        'if row[0] != "active": ...',
        'while watcher.update() == "running": ...',
        'CODES = {"succeeded": 0, "failed": 1}',
        'if row["sync_status"] in ("active", "paused"): ...',
        'outcome = Outcome(dispatch, state="ready")',
        'trigger = "resync"',
        'def run(*, trigger: str = "manual"): ...',
        'row = {"lane": "backfill"}',
        'match account.sync_status:\n    case "paused": ...',
        'State = Literal["running", "failed"]',
        "Q = \"SELECT id FROM sync_run WHERE state = 'running'\"",
        "Q = f\"SELECT id FROM {table} WHERE sync_status IN ('error', 'x')\"",
        "Q = \"UPDATE t SET state = CASE WHEN a THEN 'done' END\"",
    ],
)
def test_the_check_finds_a_spelled_out_state(source: str) -> None:
    assert list(typed_out(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        'Q = "SELECT id FROM t " + "WHERE a = 1"',
        'Q = "SELECT id FROM t WHERE {conditions}".format(conditions="true")',
        'Q = "SELECT id FROM t"\ndef look(): return Q.replace("t", "u")',
        'Q = "SELECT id FROM t"\nX = Q + " ORDER BY id"',
        'def look(table): return f"SELECT id FROM {table}"',
        'Q = "SELECT id FROM %s" % table',
        'def look(statement): return statement.format(conditions="true")',
        'A = B = "SELECT 1 FROM t"\ndef look(a): return (A if a else B).format(a=a)',
        'def look(late): return f"SELECT a.id {late} GROUP BY 1"',
    ],
)
def test_the_check_finds_sql_composed_in_another_way(source: str) -> None:
    tree = ast.parse(source)
    assert list(assembled(tree, constants_of(tree), "x.py"))
