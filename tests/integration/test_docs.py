"""What the documentation tells to do, done: the tutorial to the letter, and the README's demo."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial" / "first-plugin.md"
BLOCK = re.compile(r"^```(python|sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STAYS = "# runs until Ctrl-C\n"
SECONDS = 120
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


def environment(home: Path) -> dict[str, str]:
    """This Python first, servers of our own, and nothing that a developer has set."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("POLLING_", "DATABASE_", "REDIS_"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "POLLING_HOME": str(home), "POLLING_LOG_LEVEL": "WARNING", "COLUMNS": "200"}


@contextmanager
def running(script: str, folder: Path, env: dict[str, str]) -> Iterator[None]:
    """A command that stays, in a session of its own, until the block ends."""
    with (folder / "stays.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-euc", script], cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(SECONDS)
        # The shell has ended; what it started ends in its own time.
        deadline = time.monotonic() + SECONDS
        with suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(process.pid, 0)
                time.sleep(0.1)
            os.killpg(process.pid, signal.SIGKILL)


def run(script: str, folder: Path, env: dict[str, str]) -> str:
    """What a block of commands prints; it must succeed."""
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_tutorial_works(tmp_path: Path) -> None:
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


def test_the_demo_keeps_what_can_be_kept_and_names_the_rest(tmp_path: Path) -> None:
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
    for reason in ("broken links", "links that lead out", "links to directories", "sockets, pipes and devices"):
        assert re.search(rf"left out: {reason}.* \(1\)", said)


def test_the_demo_says_in_a_line_what_is_wrong(tmp_path: Path) -> None:
    done = subprocess.run(
        ["polling", "demo", "/no/such/directory"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: /no/such/directory is no directory")
    assert "Traceback" not in done.stderr
