"""Read the prose of a file: paragraphs, docstrings, comments, messages and the text of pages."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

CODE = "X"
"""Replaces inline code, a placeholder or a tag, and counts as one word."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph without its markup, and the line on which it starts."""

    line: int
    text: str
    kind: str
    """`markdown`, `heading`, `docstring`, `comment`, `string`, `template` or `title`."""


def passages(path: Path) -> Iterator[Passage]:
    """Yield the prose of a file; a kind of file that the linter does not know has none."""
    readers = {".md": _markdown, ".py": _python, ".html": _template}
    if read := readers.get(path.suffix, _MARKED.get(path.suffix)):
        yield from read(path.read_text(encoding="utf-8"))


_FENCE = re.compile(r"^\s*(```|~~~)")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+|^\s*>\s?")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_INLINE_CODE = re.compile(r"(`+)(?:(?!\1).)+?\1", re.DOTALL)
_EMPHASIS = re.compile(r"\*\*|__|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)")


def _markdown(text: str, first: int = 1, kind: str = "markdown") -> Iterator[Passage]:
    """Yield paragraphs, list items, headings and table cells, without code blocks."""
    block: list[str] = []
    start = first
    fenced = False
    for number, line in enumerate([*text.splitlines(), ""], first):
        fence = _FENCE.match(line) is not None
        if fence:
            fenced = not fenced
        if fenced:
            continue
        stripped = "" if fence else line.strip()
        own = stripped.startswith(("#", "|")) and kind == "markdown"
        if not stripped or own or _ITEM.match(line):
            if block:
                yield Passage(start, _plain(" ".join(block)), kind)
            block, start = [], number
        if own and stripped.startswith("#"):
            yield Passage(number, _plain(stripped.lstrip("# ")), "heading")
        elif own:
            for cell in _plain(stripped.replace(r"\|", CODE)).strip("|").split("|"):
                yield Passage(number, cell.strip(" -:"), kind)
        elif stripped:
            block.append(_ITEM.sub("", line).strip())


def _plain(text: str) -> str:
    text = _INLINE_CODE.sub(CODE, text)
    text = _LINK.sub(r"\1", text)
    return re.sub(r"\s+", " ", _EMPHASIS.sub("", text)).strip()


_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Example|Examples|Note|Attributes):$")
_ARGUMENT = re.compile(r"^[*\w.]+(?: \([^)]*\))?: ")


def _docstring(text: str, first: int) -> Iterator[Passage]:
    """Yield the paragraphs of a docstring; each argument of an `Args:` list is one."""
    lines = []
    for line in text.expandtabs().splitlines():
        bare = line.strip()
        if _SECTION.match(bare) or bare.startswith((">>> ", "... ")):
            bare = ""
        elif _ARGUMENT.match(bare):
            bare = "- " + bare.split(": ", 1)[1]
        lines.append(bare)
    yield from _markdown("\n".join(lines), first, "docstring")


def _python(text: str) -> Iterator[Passage]:
    tree = ast.parse(text)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(node.value)
    for string in docstrings:
        if isinstance(string.value, str):
            yield from _docstring(string.value, string.lineno)
    yield from _messages(tree, docstrings)
    yield from _comments(text)


_PROSE = re.compile(r"[A-Za-z']{2,}[,;:.]? [A-Za-z']+")
_SQL = re.compile(
    r"\s*(--|\(?(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|FROM|WHERE|AND|OR|ON|SET|ORDER|"
    r"LEFT|JOIN|VALUES|RETURNING|CASE|EXISTS|NOT|LOCK|TRUNCATE|COPY|ANALYZE|VACUUM|LISTEN|GRANT)\b)"
)


def _messages(tree: ast.AST, docstrings: set[ast.Constant]) -> Iterator[Passage]:
    """Yield string constants that read as prose: two words beside each other, and no SQL."""
    parts: set[ast.expr] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts.update(node.values)
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else CODE for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node in docstrings or node in parts:
                continue
            text = node.value
        else:
            continue
        if _PROSE.search(text) and not _SQL.match(text) and "SELECT " not in text:
            yield from _markdown(text, node.lineno, "string")


def _comments(text: str) -> Iterator[Passage]:
    lines = {
        token.start[0]: token.string.lstrip("#: ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and not token.string.startswith("#!")
    }
    yield from _joined(lines)


def _lines_marked(mark: str, text: str) -> Iterator[Passage]:
    """Yield comments that stand on lines of their own."""
    pattern = re.compile(rf"^\s*{mark}(?!!)\s?")
    yield from _joined(
        {
            number: pattern.sub("", line)
            for number, line in enumerate(text.splitlines(), 1)
            if pattern.match(line)
        }
    )


_MARKED = {
    suffix: partial(_lines_marked, mark)
    for mark, suffixes in (
        ("#+", ("", ".conf", ".env", ".ini", ".service", ".sh", ".toml", ".yaml", ".yml")),
        (r"(?://|/?\*+/?)", (".css", ".js")),
    )
    for suffix in suffixes
}
"""Reads the comments of a file, by the end of its name."""


def _joined(lines: dict[int, str]) -> Iterator[Passage]:
    """Yield comments on consecutive lines as one text."""
    block: list[str] = []
    first = previous = 0
    for number, line in [*sorted(lines.items()), (-1, "")]:
        if number != previous + 1 and block:
            yield from _markdown("\n".join(block), first, "comment")
            block = []
        if not block:
            first = number
        block.append(line)
        previous = number


_SILENT = re.compile(r"<(script|style)\b.*?</\1>|\{#.*?#\}", re.DOTALL)
_STATEMENT = re.compile(r"\{%.*?%\}", re.DOTALL)
_VALUE = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_WORDS = re.compile(r"""(["'])((?:(?!\1).)*? (?:(?!\1).)*?)\1""")
_INLINE = re.compile(r"</?(?:a|b|i|em|strong|code|kbd|small|time|span|abbr)\b[^>]*>", re.IGNORECASE)
_SHOWN = re.compile(
    r"""\b(title|placeholder|aria-label|alt|data-[\w-]+)\s*=\s*"([^"]*)\"""", re.IGNORECASE
)
_TAG = re.compile(r"</?[a-zA-Z!][^>]*>")
_TITLE = re.compile(r"<(h[1-6]|title|legend|caption|th)\b[^>]*>(.*?)</\1>", re.DOTALL)


def _template(text: str) -> Iterator[Passage]:
    """Yield the text between block tags, attributes that people read, and strings in statements."""
    text = _SILENT.sub(_blank, text)

    def found(pattern: re.Pattern[str], group: int, kind: str) -> Iterator[Passage]:
        for match in pattern.finditer(text):
            yield Passage(text.count("\n", 0, match.start()) + 1, match[group].strip(), kind)

    for code in [*_STATEMENT.finditer(text), *_VALUE.finditer(text)]:
        line = text.count("\n", 0, code.start()) + 1
        for string in _WORDS.finditer(code[0]):
            if _PROSE.search(string[2]):
                yield Passage(line, string[2], "template")
    text = _VALUE.sub(lambda match: CODE + _blank(match), _STATEMENT.sub(_blank, text))
    yield from found(_SHOWN, 2, "template")
    for title in found(_TITLE, 2, "title"):
        yield Passage(title.line, _TAG.sub("", title.text), "title")
    text = _INLINE.sub(_blank, text)
    position = 0
    for tag in [*_TAG.finditer(text), None]:
        end = tag.start() if tag else len(text)
        words = re.sub(r"\s+", " ", text[position:end]).strip()
        if words:
            lead = len(text[position:end]) - len(text[position:end].lstrip())
            yield Passage(text.count("\n", 0, position + lead) + 1, words, "template")
        position = tag.end() if tag else end


def _blank(match: re.Match[str]) -> str:
    """Keep the lines of what is removed, so that later line numbers stay right."""
    return "\n" * match[0].count("\n")
