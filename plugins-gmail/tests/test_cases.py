"""Mails of public bug reports, with their correct values; the files name the reports."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from mailparser_reply import EmailReplyParser
from support.mail_cases import cases, relatives, value, wrong

from core.mail import READER_VERSION, read, split_reply
from core.mail.replies import LANGUAGES

CASES = cases() + relatives()


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


REPLIES = [
    ("On Mon, Mar 2, 2026, Bob wrote:\n> When?\n\nTomorrow.", "Tomorrow."),
    ("On Mon, Mar 2, 2026, Bob wrote:\n> When?\nTomorrow.\n> Where?\nHere.", "Tomorrow.\nHere."),
    ("No.\n\nOn Mon, Mar 2, 2026 at 10:11 Bob Lee\n<b@x.example> wrote:\n\n> When?", "No."),
    ("No.\n\nEl lun, 2 mar 2026, Bob (<b@x.example>) escribi\u00f3:\n> When?", "No."),
    ("No.\n\nEm seg., 2 de mar. de 2026, Bob escreveu:\n> When?", "No."),
    ("No.\n\n\u043f\u043d, 2 \u043c\u0430\u0440. 2026, Bob <b@x.example>:\n> When?", "No."),
    ("No.\n\n\u5728 2026\u5e743\u67082\u65e5\uff0cBob \u5199\u9053\uff1a\n> When?", "No."),
    ("> When?\n\nTomorrow.", "Tomorrow."),
    ("> Only a quote.", "> Only a quote."),
    ("My question:\n> When?\nTomorrow.", "My question:\nTomorrow."),
    ("Points:\n- one\n- two\n\nBye", "Points:\n- one\n- two\n\nBye"),
    ("Morgen.\n\nVon meinem iPhone gesendet", "Morgen."),
    (
        "Note: at ten.\nFrom: the station, turn left.",
        "Note: at ten.\nFrom: the station, turn left.",
    ),
]


@pytest.mark.parametrize(("text", "new"), REPLIES, ids=range(len(REPLIES)))
def test_new_words_are_those_outside_of_quotes(text: str, new: str) -> None:
    assert split_reply(text).new == new


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["a" + "\n" * 32_000 + "b", ">\n" * 16_000, "a 1:\n> x\n" * 3_000,
    "Enviado desde x\n" * 2_000, " \n" * 16_000 + ":", "> " * 900])  # fmt: skip
def test_hostile_replies_are_split_in_bounded_time(text: str) -> None:
    assert split_reply(text) is not None


HISTORY = (
    "On Mon, Ann wrote:", "Am 1.5. schrieb Ann:", "Le lundi, Ann a \u00e9crit :",
    "El lunes, Ann escribi\u00f3:", "Il lun, Ann ha scritto:", "Op ma schreef Ann:",
    "Dnia 1.5. Ann napisa\u0142(a):", "Den 1. maj skrev Ann:", "Dne 1.5. Ann napsal(a):",
    "2024\u5e745\u67081\u65e5(\u6c34) 12:00 Ann <a@b.example>:",
    "2024\u5e745\u67081\u65e5 Ann \u5199\u9053\uff1a", "From: Ann\nSent: Monday\nTo: Bob",
    "2024\ub144 5\uc6d4 1\uc77c Ann\ub2d8\uc774 \uc791\uc131\ud558\uc600\uc2b5\ub2c8\ub2e4:",
    "*From:* Ann\n*Sent:* Monday", "\u00a0 Von: Ann\n\u00a0 Gesendet: Montag\n\u00a0 An: Bob",
    "De : Ann\nEnvoy\u00e9 : lundi\nObjet : x", "Od: Ann", "Fra: Ann\nSendt: mandag",
    "\ubcf4\ub0b8 \uc0ac\ub78c: Ann\n\ubc1b\ub294 \uc0ac\ub78c: Bob",
    "\u53d1\u4ef6\u4eba: Ann\n\u4e3b\u9898: x", "----- Original Message -----",
)  # fmt: skip
"""Lines above quoted history, as mail programs of several languages write them."""


@pytest.mark.parametrize("line", HISTORY, ids=range(len(HISTORY)))
def test_the_quick_look_for_history_misses_no_line_that_the_library_knows(line: str) -> None:
    text = f"Yes.\n\n{line}\n\nOld words."
    library = EmailReplyParser(languages=[*LANGUAGES]).read(text).replies[0]
    assert split_reply(text).new == (library.body or "").strip()


def test_the_reading_says_what_was_guessed() -> None:
    mail = read("Content-Type: text/plain; charset=utf-8\n\nZürich, Genève".encode("latin-1"))
    [charset] = mail.reading()["charsets"]
    assert (charset["declared"], charset["used"], charset["how"]) == ("utf-8", "cp1252", "detected")
    assert mail.reading()["version"] == READER_VERSION
    assert read(b"\n" + b"x" * 2_000_000).reading()["cut"] == ["text"]
