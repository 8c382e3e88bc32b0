"""Sentences about the reading of a mail."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from core.dashboard import mail_reading
from core.mail import read
from core.mail.charsets import How


def notes(source: bytes) -> list[str]:
    return mail_reading.notes({"reading": read(source).reading()})


@pytest.mark.parametrize(
    ("source", "note"),
    [
        (b"Content-Type: text/plain; charset=latin-1\n\n\xfc", "Charset: .*, as the mail declares"),
        (b"\n\nGr\xc3\xbc\xc3\x9fe", "Charset: utf-8, because it is valid UTF-8; .* declares none"),
        (
            b'Content-Type: text/html\n\n<meta charset="koi8-r"><p>\xf0\xd2\xc9\xd7\xc5\xd4',
            "Charset: koi8-r, as its HTML says",
        ),
        (
            b"Content-Type: text/plain; charset=x-unknown\n\n" + "Größe für Ärger".encode("cp1252"),
            "guessed.*; the mail declares x-unknown",
        ),
        (b"Content-Type: multipart/mixed\n\n--b\n\nx\n--b--", "does not say where its parts begin"),
        (b"Content-Type: text/plain\n\n" + b"word " * 300_000, "exceeds the maximum length"),
    ],
)  # fmt: skip
def test_a_reading_is_explained(source: bytes, note: str) -> None:
    assert any(re.search(note, found) for found in notes(source)), notes(source)


def test_every_source_of_a_charset_has_words() -> None:
    for how in get_args(How):
        each: dict[str, Any] = {"used": "cp1252", "declared": "x", "how": how}
        (note,) = mail_reading.notes({"reading": {"charsets": [each]}})
        assert note.startswith("Charset: windows-1252, ")
        assert ("guessed" in note) == (how in ("detected", "default")), how


@pytest.mark.parametrize(
    "reading",
    [None, 1, [], {"charsets": 5}, {"cut": "text"}, {"cut": [1, None]}, {"replaced": "x"},
     {"charsets": [{"how": ["x"], "used": 5}]}, {"repaired": {"a": 1}}, {"charsets": [None]}],
)  # fmt: skip
def test_readings_of_other_plugins_break_nothing(reading: Any) -> None:
    assert all(isinstance(note, str) for note in mail_reading.notes({"reading": reading}))


def test_the_most_important_comes_first_and_the_number_is_bounded() -> None:
    charsets = [{"used": f"c{n}", "how": "declared", "declared": f"c{n}"} for n in range(100)]
    found = mail_reading.notes({"reading": {"charsets": charsets, "cut": ["text"], "replaced": 2}})
    assert found[0].startswith("The text exceeds")
    assert "2 places" in found[1]
    assert len(found) == mail_reading.MAX_NOTES
