"""Tests that run what the documentation shows: the complete tutorial, and the README's demo."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from support.documents import BLOCK, SECONDS, STAYS, environment, run, running

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial" / "first-plugin.md"
ODD = {
    "empty": b"",
    "below/every byte": bytes(range(256)),
    "below/deeper/a NUL in text": b"before\0after",
    "below/large": b"\xff" * (1024 * 1024 + 1),
    "  spaces  ": b"spaces",
    "-rf": b"a dash",
    "100%41 Grüße 🎈": b"escapes",
    os.fsdecode(b"no text \xe9\xff") if sys.platform == "linux" else "text": b"bytes",
}


def test_every_step_of_the_tutorial_works(tmp_path: Path) -> None:
    folder, env = tmp_path / "tutorial", environment(tmp_path / "home")
    folder.mkdir()
    printed = ""
    with ExitStack() as stack:
        for kind, text in BLOCK.findall(TUTORIAL.read_text("utf-8")):
            if kind == "python":
                (folder / text.splitlines()[0].removeprefix("# ")).write_text(text)
            elif kind == "text":
                assert printed == text
            elif text.startswith(STAYS):
                stack.enter_context(running(text, folder, env))
            else:
                printed = run(text, folder, env)
    assert "succeeded" in printed
    assert "Buy bread" in printed
    assert "Call Ada" in printed


def test_the_demo_keeps_readable_files_and_names_the_others(tmp_path: Path) -> None:
    tree, env = tmp_path / "tree", environment(tmp_path / "home")
    (tree / "below" / "deeper").mkdir(parents=True)
    for name, content in ODD.items():
        (tree / name).write_bytes(content)
    (tree / "to-a-file").symlink_to("empty")
    (tree / "to-nothing").symlink_to("nothing")
    (tree / "outside").symlink_to("/etc/passwd")
    (tree / "in-a-circle").symlink_to(".")
    os.mkfifo(tree / "pipe")
    said = run(f"polling demo {shlex.quote(str(tree))}", tmp_path, env)
    assert f"All {len(ODD) + 1} files are in the content table, byte for byte" in said
    for reason in (
        "broken links",
        "links that lead out",
        "links to directories",
        "sockets, pipes and devices",
    ):
        assert re.search(rf"skipped: {reason}.* \(1\)", said)


def test_the_demo_reports_an_error_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        ["polling", "demo", "/no/such/directory"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: /no/such/directory is not a directory")
    assert "Traceback" not in done.stderr
