"""Replies of real servers, with their meanings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from integration_polling_ftp import errors
from integration_polling_ftp.replies import Meaning, classify

FOLDER = Path(__file__).parent / "cases"
CASES = json.loads((FOLDER / "replies.json").read_text())
REPORTED = json.loads((FOLDER / "reported.json").read_text())["replies"]
"""Replies that users of other clients have reported, each with its source."""


@pytest.mark.parametrize(("reply", "command", "meaning", "source"), REPORTED)
def test_a_reported_reply_has_its_meaning(
    reply: str, command: str, meaning: str, source: str
) -> None:
    assert classify(reply, command) == meaning, source


@pytest.mark.parametrize(("reply", "command", "meaning", "error"), CASES)
def test_a_reply_has_its_meaning(reply: str, command: str, meaning: str, error: str | None) -> None:
    assert classify(reply, command) == meaning
    if error:
        assert type(errors.meaning(reply, command)).__name__ == error


def test_a_limit_names_the_connections() -> None:
    limited = errors.meaning("421 Too many users")
    assert getattr(limited, "limit", None) == errors.CONNECTIONS


@given(st.text(max_size=200), st.text(max_size=50))
def test_each_reply_has_a_meaning(reply: str, command: str) -> None:
    assert classify(reply, command) in Meaning
