"""The prose linter finds sentences that are not plain, and leaves plain ones alone."""

from __future__ import annotations

from pathlib import Path

import prose
import prose_text
import pytest

PAIRS = [
    pair
    for line in Path(__file__).with_name("prose_examples.txt").read_text("utf-8").splitlines()
    if len(pair := tuple(line.split("\t"))) == 2
]
FILES = {
    "page.md": "Text.\n\n{}\n",
    "cells.md": "| Name | Text |\n|---|---|\n| a | {} |\n",
    "doc.py": '"""Return the number of tasks.\n\n{}\n"""\n',
    "comment.py": "x = 1\n# {}\n",
    "message.py": 'raise ValueError(\n    "{}"\n)\n',
    "page.html": "<p>Text</p>\n<p>{}</p>\n",
    "label.html": '<p>Text</p>\n<button title="{}">Stop</button>\n',
    "run.sh": "#!/bin/sh\n# {}\n",
    "style.css": "/* {} */\n",
}
"""A file of each kind, with a place for one text."""


def findings(path: Path, text: str) -> list[prose.Finding]:
    path.write_text(text, "utf-8")
    return [finding for passage in prose_text.passages(path) for finding in prose.judge(passage)]


@pytest.mark.parametrize(("says", "plain"), PAIRS)
def test_a_text_that_is_not_plain_is_found_and_its_plain_form_is_not(says: str, plain: str) -> None:
    for kind in ("string", "template", "markdown"):
        assert list(prose.judge(prose_text.Passage(1, says, kind))), says
        assert not list(prose.judge(prose_text.Passage(1, plain, kind))), plain


@pytest.mark.parametrize(("says", "plain"), PAIRS)
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_read(tmp_path: Path, name: str, says: str, plain: str) -> None:
    template = FILES[name]
    line = template[: template.index("{}")].count("\n") + 1
    found = findings(tmp_path / name, template.replace("{}", says))
    assert found
    assert {finding.line for finding in found} <= {line, line - 1}
    assert not findings(tmp_path / name, template.replace("{}", plain))


@pytest.mark.parametrize(
    "text",
    [
        "Returns:\n    What it holds.",
        "Args:\n    task: Of one account.",
        "The saver is told about it.",
        "The task is given back.",
        "Nobody dispatches these tasks.",
    ],
)
def test_the_parts_of_a_docstring_are_read(tmp_path: Path, text: str) -> None:
    body = text.replace("\n", "\n    ")
    assert findings(tmp_path / "f.py", f'def f():\n    """Return it.\n\n    {body}\n    """\n')


@pytest.mark.parametrize("section", ["Parameters", "Arguments", "Params"])
def test_a_section_of_another_convention_is_found(tmp_path: Path, section: str) -> None:
    """Ruff checks that `Args` is complete, and ignores the sections of other conventions."""
    text = 'def f(x):\n    """Return it.\n\n    {}:\n      x: The number.\n    """\n'
    assert [each.rule for each in findings(tmp_path / "f.py", text.format(section))] == ["section"]
    assert not findings(tmp_path / "f.py", text.format("Args"))


@pytest.mark.parametrize(
    "text",
    [
        "```\nthis task is no task, at once\n```\n",
        "Run `git at once` now.\n",
        "See [the page](at-once.md).\n",
    ],
)
def test_code_and_addresses_are_not_read(tmp_path: Path, text: str) -> None:
    assert not findings(tmp_path / "page.md", text)


@pytest.mark.parametrize(
    "text",
    [
        'SQL = """\nSELECT none of this\n"""\n',
        "SQL = f'UPDATE whole SET {x} = 1'\n",
        "name = 'meanwhile'\n",
    ],
)
def test_sql_and_single_words_are_not_read(tmp_path: Path, text: str) -> None:
    assert not findings(tmp_path / "f.py", text)


def test_placeholders_do_not_hide_words(tmp_path: Path) -> None:
    assert findings(tmp_path / "f.py", 'text = f"{name} is no task"\n')
    assert findings(tmp_path / "f.html", "<p>{{ name }} is no task</p>\n")
    assert findings(tmp_path / "f.html", "<p><b>This</b> is no task</p>\n")
    assert findings(tmp_path / "g.html", '{% call box("It goes on without it") %}\n')


def test_a_long_sentence_is_found(tmp_path: Path) -> None:
    words = " ".join(["word"] * 29)
    assert not findings(tmp_path / "page.md", f"The {words}.\n\nThe {words}\n")
    assert not findings(tmp_path / "page.md", f"The {words}. The {words}.\n")
    assert [f.rule for f in findings(tmp_path / "page.md", f"The first {words}.\n")] == ["long"]


def test_a_question_is_not_a_heading_of_a_page(tmp_path: Path) -> None:
    assert findings(tmp_path / "page.html", "<h2>Is the content fresh?</h2>\n")
    assert not findings(tmp_path / "page.html", "<h2>Freshness</h2>\n")
    assert findings(tmp_path / "page.md", "## Is the content fresh?\n")
    assert not findings(tmp_path / "page.md", "## Freshness\n")


def test_the_allow_list_covers_its_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    row = prose.Allowed("docs/a.md", "vague", "whole", "a reason")
    finding = prose.Finding("docs/a.md", 1, "vague", "whole", "")
    assert row.covers(finding)
    assert not row.covers(prose.Finding("docs/b.md", 1, "vague", "whole", ""))
    assert not row.covers(prose.Finding("docs/a.md", 1, "verb", "whole", ""))
    assert not row.covers(prose.Finding("docs/a.md", 1, "vague", "at once", ""))


def test_every_allowed_file_exists_and_has_a_reason() -> None:
    for row in prose.allowed():
        assert list(prose.ROOT.glob(row.path)), row.path
        assert len(row.reason.split()) >= 3
