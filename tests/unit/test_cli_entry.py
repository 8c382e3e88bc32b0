"""Exit codes, errors and help of the command line, and the files of `polling new`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args
from uuid import UUID

import pytest
from typer.main import get_command

from core.cli import entry
from core.cli.accounts import UsedState
from core.cli.app import build
from core.errors import InvalidInput, NotFound
from core.service import lookup
from core.service.scaffold import scaffold
from core.states import AccountState

COMMANDS = sorted(get_command(build()).commands)  # type: ignore[attr-defined]


def run(*argv: str) -> int:
    return entry.run(argv)


@pytest.mark.parametrize(
    "argv", [(), ("nope",), ("sync",), ("sync", "x", "--nope"), ("runs", "show")]
)
def test_wrong_usage_exits_with_2(
    argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 2
    text = capsys.readouterr()
    assert "Traceback" not in text.err
    assert "polling" in text.out + text.err


def test_accounts_are_filtered_by_states_in_use_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert get_args(UsedState) == AccountState.used()
    assert run("accounts", "--state", "erased") == 2
    assert "'erased' is not one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("accounts", "--status", "actve"), "'actve' is not one of"),
        (("tokens", "create", "--user", "ann", "--days", "1e12"), "'1e12'"),
    ],
)
def test_the_usual_words_for_an_option_are_understood(
    argv: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert "polling " + command in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            NotFound("account-not-found", account="shop"),
            1,
            "error: account shop not found\nList accounts: polling accounts\n",
        ),
        (
            ValueError("odd\nsecond line"),
            1,
            "error: ValueError: odd\nFor a traceback: POLLING_LOG_LEVEL=DEBUG\n",
        ),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(143), 143, ""),
        (
            NotFound("account-not-found", account="a\x1b[2Jb"),
            1,
            "error: account a\\x1b[2Jb not found\nList accounts: polling accounts\n",
        ),
    ],
)
def test_an_error_is_printed_in_one_line(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.delenv("POLLING_LOG_LEVEL", raising=False)
    monkeypatch.setattr(entry, "_invoke", fail)
    assert run() == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", said)


def test_help_loads_neither_database_nor_broker() -> None:
    code = """
import sys
from core.cli.entry import run
assert run(["--help"]) == 0
loaded = {"psycopg", "sqlalchemy", "alembic", "redis", "dramatiq", "obstore"} & set(sys.modules)
sys.exit(", ".join(sorted(loaded)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_new_plugin_passes_its_own_tests(tmp_path: Path) -> None:
    made = scaffold(tmp_path / "My CRM")
    assert made.domain == "my-crm"
    tests = [str(tmp_path / "My CRM" / "tests")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
        "--rootdir",
        *tests,
        *tests,
    ]
    env = {"PYTHONPATH": str(tmp_path / "My CRM" / "src"), "PATH": ""}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["1st", "…", "polling"])
def test_names_that_do_not_make_a_domain_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        scaffold(tmp_path / name)


def test_a_directory_that_is_not_empty_is_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    with pytest.raises(InvalidInput, match="not empty"):
        scaffold(tmp_path, "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("text", ["x", "1.5", "-1", "9" * 30, "٣"])
def test_an_id_that_is_not_a_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        lookup.number(text, "task")


def test_a_name_has_to_match_exactly_one_account() -> None:
    ids = [UUID(int=1), UUID(int=2)]
    assert lookup._only([(ids[0], "a")], "x", "account") == ids[0]
    with pytest.raises(NotFound):
        lookup._only([], "x", "account")
    with pytest.raises(InvalidInput, match="several accounts") as caught:
        lookup._only([(ids[0], "a, ftp"), (ids[1], "b, ftp")], "x", "account")
    assert all(str(one) in caught.value.message for one in ids)


def test_help_texts_wrap_at_the_width_of_the_terminal() -> None:
    """A paragraph has no line break of its own, unless it is marked as preformatted."""
    apps = [build()]
    broken = []
    while apps:
        app = apps.pop()
        apps += [group.typer_instance for group in app.registered_groups if group.typer_instance]
        broken += [
            paragraph
            for command in app.registered_commands
            for paragraph in (command.help or "").split("\n\n")
            if "\n" in paragraph and not paragraph.startswith("\b")
        ]
    assert not broken


ASKING = {
    "bash": {"COMP_WORDS": "polling acc", "COMP_CWORD": "1"},
    "zsh": {"_TYPER_COMPLETE_ARGS": "polling acc"},
    "fish": {"_TYPER_COMPLETE_ARGS": "polling acc", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


@pytest.mark.parametrize("shell", ASKING)
def test_a_shell_completes_words(shell: str) -> None:
    """It needs no settings, and starts no server."""
    asking = ASKING[shell] | {"_POLLING_COMPLETE": f"complete_{shell}"}
    program = [sys.executable, "-c", "from core.cli import main; main()"]
    done = subprocess.run(
        program, env=os.environ | asking, capture_output=True, text=True, check=True, timeout=60
    )
    assert "accounts" in done.stdout
    assert "audit" not in done.stdout


def test_bash_runs_the_script_of_the_command(tmp_path: Path) -> None:
    program = tmp_path / "polling"
    program.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from core.cli import main; main()' \"$@\"\n"
    )
    program.chmod(0o755)
    script = """
    source <(polling completion bash)
    COMP_WORDS=(polling tasks --sta) COMP_CWORD=2
    _polling_completion polling
    echo "${COMPREPLY[@]}"
    """
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=os.environ | path, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.split(), done.stderr) == (["--state"], "")


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("completion", "tcsh") == 2
    assert "tcsh" in capsys.readouterr().err
