"""Credentials from standard input and files, and a sign-in without an end."""

from __future__ import annotations

import io
from pathlib import Path
from queue import Queue

import pytest

from core.cli import inputs, sign_in
from core.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "--credentials: standard input is empty"),
        (" \n", "--credentials: standard input is empty"),
        ("{s3cret", "--credentials is not valid JSON"),
        ("[]", "--credentials is not a JSON object"),
    ],
)
def test_standard_input_without_an_object_is_named(
    text: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(InvalidInput) as caught:
        inputs.json_object("-", "--credentials")
    assert caught.value.message == problem


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(InvalidInput, match="--credentials: the file is empty"):
        inputs.json_object(f"@{tmp_path / 'empty'}", "--credentials")


@pytest.mark.parametrize(
    ("is_pasted", "step"), [(True, "paste the address"), (False, "use --headless")]
)
def test_a_sign_in_that_nobody_finishes_names_what_is_missing(
    is_pasted: bool, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "SIGN_IN_SECONDS", 0.0)
    with pytest.raises(InvalidInput) as caught:
        sign_in._first(Queue(), is_pasted=is_pasted)
    assert step in caught.value.next_step("cli")
