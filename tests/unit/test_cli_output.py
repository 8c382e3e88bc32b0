"""The output of the command line, and characters that it never prints."""

from __future__ import annotations

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from core.cli import export, integrations, output
from core.cli.listing import print_page
from core.plugins import get_registry
from core.service.pagination import Page

HOSTILE = "\x1b[2Jname\r\n[red]x[/red]\u202egnp.exe\x00\ud800"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return a terminal of 80 columns."""
    text = io.StringIO()
    console = Console(file=text, width=80, highlight=False, markup=False, emoji=False)
    monkeypatch.setattr(output, "stdout", lambda: console)
    return text


def test_control_characters_are_escaped() -> None:
    assert output.clean(HOSTILE) == r"\x1b[2Jname\r\n[red]x[/red]\u202egnp.exe\x00\ud800"
    assert output.clean("a\nb\tc\x07", lines=True) == "a\nb\tc\\x07"
    assert output.clean(None) == ""


def test_markup_in_data_is_printed_as_text(screen: io.StringIO) -> None:
    output.table(("NAME", "ID"), [("[bold]x[/bold]:smile:", 1)])
    assert "[bold]x[/bold]:smile:" in screen.getvalue()


def test_a_hostile_name_stays_on_its_line(screen: io.StringIO) -> None:
    output.table(("ID", "NAME"), [(1, HOSTILE), (2, "y")])
    lines = screen.getvalue().splitlines()
    assert len(lines) == 3
    assert not any("\x1b" in line or "\u202e" in line for line in lines)


def test_tables_fit_and_truncate_the_wide_column(screen: io.StringIO) -> None:
    output.table(("ID", "NAME", "LAST"), [("12345678", "n" * 200, "3 min ago")], wide="NAME")
    lines = screen.getvalue().splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert "…" in lines[1]
    assert lines[1].rstrip().endswith("3 min ago")


def test_a_table_that_wraps_shows_every_word(screen: io.StringIO) -> None:
    words = " ".join(f"word{number}" for number in range(40))
    output.table(("ID", "MEANING"), [("12345678", words)], wraps=True)
    assert max(map(len, screen.getvalue().splitlines())) <= 80
    assert screen.getvalue().split() == ["ID", "MEANING", "12345678", *words.split()]


def test_an_integration_shows_its_fields_and_limits_in_words(
    screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrations, "stdout", output.stdout)
    monkeypatch.setattr(integrations, "registry", get_registry)
    integrations.show("ftp")
    shown = screen.getvalue()
    assert "connections: 4 tasks at the same time for each account" in shown
    assert not any(line.rstrip().endswith("…") for line in shown.splitlines())
    assert "hidden" not in {line.split()[2] for line in shown.splitlines() if len(line.split()) > 2}
    integrations.show("gmail")
    assert "quota: 6,000 units in 1 min for each account" in screen.getvalue()


def test_wide_characters_count_as_two_columns(screen: io.StringIO) -> None:
    output.table(("NAME", "ID"), [("漢字" * 40, 1)], wide="NAME")
    assert len(screen.getvalue().splitlines()) == 2


def test_fields_have_labels_and_booleans_are_words(screen: io.StringIO) -> None:
    row = {"sync_status": "active", "identity": "x", "dispatch_no": 1, "attempts": 0}
    output.describe(row | {"resync_due": False, "suspect": True})
    assert {" ".join(line.split()) for line in screen.getvalue().splitlines()} == {
        "state active",
        "provider account x",
        "dispatch number 1",
        "failed attempts 0",
        "resync due no",
        "suspect yes",
    }


def test_json_is_ascii_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.dump({"name": HOSTILE, "at": datetime(2026, 1, 2, tzinfo=UTC)})
    text = capsys.readouterr().out
    assert text.isascii()
    assert text.count("\n") == 1
    assert json.loads(text) == {"name": HOSTILE, "at": "2026-01-02T00:00:00+00:00"}


def test_the_hint_to_the_next_page_keeps_the_filters(capsys: pytest.CaptureFixture[str]) -> None:
    """A command with the cursor alone would list the rows of other accounts."""

    class OneRow:
        def page(self, *_: object, **filters: object) -> Page:
            assert filters == {"limit": 1, "after": None, "state": "parked"}
            return Page([{"id": 1}], "cursor-1")

    print_page(
        None,  # type: ignore[arg-type]
        OneRow(),  # type: ignore[arg-type]
        ("ID",),
        lambda row: (row["id"],),
        nouns="tasks",
        json=False,
        limit=1,
        state="parked",
    )
    assert "repeat the command with --after cursor-1" in " ".join(capsys.readouterr().err.split())


def test_an_export_writes_to_a_pipe_and_does_not_replace_it(tmp_path: Path) -> None:
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as threads:
        read = threads.submit(pipe.read_bytes)
        export._replace(pipe, [b"one", b"two"])
        assert read.result(30) == b"onetwo"
    assert pipe.is_fifo()
    file.write_bytes(b"old")
    export._replace(file, [b"new"])
    assert file.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]
