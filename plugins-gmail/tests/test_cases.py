"""Mails of public bug reports, with their correct values; the files name the reports."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from support.mail_cases import cases, value, wrong

from core.mail import READER_VERSION, read, split_reply

CASES = cases()


@pytest.mark.parametrize(("name", "source", "expected"), CASES, ids=[name for name, *_ in CASES])
def test_a_case_is_read_right(name: str, source: bytes, expected: dict[str, Any]) -> None:
    found = value(source)
    assert wrong(found, expected) == [], found


def mutant(source: bytes, chance: random.Random) -> bytes:
    data = bytearray(source)
    for _ in range(chance.randint(1, 8)):
        start = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[start : start + chance.randint(0, 30)] = b""
            case 1:
                data[start:start] = chance.randbytes(chance.randint(1, 10))
            case 2:
                data[start:start] = data[chance.randrange(len(data) + 1) :][:100]
            case _:
                data[start : start + 1] = chance.choice(
                    [b"\n", b"\r", b"=", b'"', b"<", b"\0", b";"]
                )
    return bytes(data)


@pytest.mark.parametrize("seed", range(3))
def test_mutants_raise_nothing_in_pieces_of_any_size(seed: int) -> None:
    chance = random.Random(seed)
    for name, source, _ in CASES:
        if len(source) > 20_000:
            continue
        raw = mutant(source, chance)
        size = chance.randint(1, 60)
        whole = read(raw)
        pieces = read(raw[start : start + size] for start in range(0, len(raw), size))
        assert pieces.text == whole.text, (name, raw)
        for mail in (whole, pieces):
            everything = [mail.text, mail.subject, mail.headers(), mail.reading()]
            everything += [[person.name for person in mail.people("cc")]]
            json.dumps(everything, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"Cc: " + b"a <" * 100_000, b"Cc: " + b"x:" * 200_000 + b";", b"Cc: " + b"=?a?q?" * 50_000,
        b"Content-Type: text/html\n\n" + b"<a href=x>" * 100_000,
        b"Content-Type: text/html\n\n" + b'<a "' * 200_000,
        b"Content-Type: text/html\n\n" + b"<script>" * 100_000,
        b"Content-Type: text/html\n\n" + b"<p style='" + b"font:" * 100_000,
        b"Content-Type: application/pkcs7-mime\n\n" + b"\x30\x80" * 100_000,
        b"Content-Type: application/ms-tnef\n\n\x78\x9f\x3e\x22" + b"\0" * 1_000_000,
        b"Content-Type: text/plain; format=flowed\n\n" + b"> \n" * 200_000,
        b"Content-Type: text/calendar\n\n" + b"SUMMARY;a=" * 100_000,
        b"Content-Type: text/plain;" + b" a" * 30_000 + b"\n\nx",
        b"Date: " + b"1 " * 100_000 + b"\n\nx", b"\xe9" * 1_000_000,
        b"Subject: " + b"\xe9" * 500_000,
        b"x: y\n" * 100_000 + b"junk\n" * 100_000,
        b"Content-Type: text/enriched\n\n" + b"<param>" * 100_000,
    ],
    ids=range(17),
)  # fmt: skip
@pytest.mark.timeout(60)
def test_hostile_mail_is_read_in_bounded_time(raw: bytes) -> None:
    mail = read(raw)
    assert isinstance([mail.people("cc"), mail.headers(), mail.date, mail.reading()], list)


def test_new_words_are_apart_from_history_and_signature() -> None:
    text = "Yes.\n\n-- \nAnn\n\nOn Mon, Mar 2, 2026 at 10:11 AM Bob <b@x.example> wrote:\n> When?"
    reply = split_reply(text)
    assert (reply.is_split, "Yes." in reply.new, "When?" in reply.new) == (True, True, False)


def test_the_reading_says_what_was_guessed() -> None:
    mail = read("Content-Type: text/plain; charset=utf-8\n\nZürich, Genève".encode("latin-1"))
    [charset] = mail.reading()["charsets"]
    assert (charset["declared"], charset["used"], charset["how"]) == ("utf-8", "cp1252", "detected")
    assert mail.reading()["version"] == READER_VERSION
    assert read(b"\n" + b"x" * 2_000_000).reading()["cut"] == ["text"]
