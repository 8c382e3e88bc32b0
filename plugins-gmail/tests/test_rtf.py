"""The body of `winmail.dat` as compressed RTF: plain, with HTML in it, and hostile."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_containers import attribute, opened

from core.mail.budget import Budget
from core.mail.rtf import MAX_RTF_BYTES, decompress, text_of_rtf

# The example of MS-OXRTFCP, section 4.1.
EXAMPLE = bytes.fromhex(
    "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af3"
    "2068656c090020627705b06c647d0a800fa0"
)
HTML = (
    rb"{\rtf1\ansi\ansicpg1252\fromhtml1 \deff0"
    rb"{\fonttbl{\f0\fswiss Arial;}{\f1\fcharset204 Arial;}}"
    rb"{\*\htmltag64 <html><body>}\htmlrtf {\htmlrtf0 {\*\htmltag84 <p>}Gr\'fc\'dfe \u8364?5"
    rb"{\*\htmltag84 <b>}\htmlrtf \b\htmlrtf0 bold{\*\htmltag92 </b>}\htmlrtf }\htmlrtf0"
    rb"{\*\htmltag84 <br>}\htmlrtf\par\htmlrtf0 {\f1 \'cf\'f0}{\*\htmltag72 </p></body></html>}}"
)
PLAIN = (
    rb"{\rtf1\ansi{\fonttbl{\f0 Arial;}}{\*\generator Riched20;}"
    rb"\pard Hello \'e9 \{x\}\par two\tab 2}"
)


def stored(rtf: bytes) -> bytes:
    return struct.pack("<IIII", len(rtf) + 12, len(rtf), 0x414C454D, 0) + rtf


def mail_text(stream: bytes) -> str:
    data = (
        struct.pack("<IHHII", 1, 0x0102, 0x1009, 1, len(stream)) + stream + bytes(-len(stream) % 4)
    )
    head = struct.pack("<IH", 0x223E9F78, 1)
    mail, files = opened(
        "application/ms-tnef; name=winmail.dat", head + attribute(1, 0x00069003, data)
    )
    assert files == {}
    return mail.text


def test_the_example_of_the_specification_is_decompressed() -> None:
    assert decompress(EXAMPLE, Budget()) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"
    assert mail_text(EXAMPLE) == "hello world"


def test_html_within_rtf_is_read_as_html() -> None:
    assert mail_text(stored(HTML)) == "Grüße €5bold\nПр"  # noqa: RUF001


def test_plain_rtf_is_read_as_text() -> None:
    assert mail_text(stored(PLAIN)) == "Hello é {x}\ntwo\t2"


@pytest.mark.parametrize(
    ("rtf", "text"),
    [
        (rb"{\rtf1 a\u-10179?\u-8704?b}", "a\U0001f600b"),
        (rb"{\rtf1\uc0 a\u8364 b}", "a€b"),
        (rb"{\rtf1\uc2 a\u8364 xxb}", "a€b"),
        (rb"{\rtf1 a\u8364\'80b}", "a€b"),
        (rb"{\rtf1 a{\pict 89504e47}b}", "ab"),
        (rb"{\rtf1 a{\*\unknown x{\y z}}b}}}} c", "ab c"),
        (rb"{\rtf1 a\emdash b\~c\_d}", "a—b\xa0c-d"),
    ],
)
def test_the_characters_of_rtf_are_read(rtf: bytes, text: str) -> None:
    assert text_of_rtf(rtf, Budget()).text == text


def test_rtf_has_a_bounded_size() -> None:
    bomb = struct.pack("<IIII", 2**31, 2**31, 0x75465A4C, 0) + (b"\xff" + b"\x00\x0f" * 8) * 100_000
    found = decompress(bomb, Budget())
    assert found is not None
    assert len(found) <= MAX_RTF_BYTES
    assert len(decompress(stored(b"x" * 3_000_000), Budget()) or b"") == MAX_RTF_BYTES
    assert text_of_rtf(b"{" * 500_000 + b"x", Budget()).is_cut


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_any_rtf_stream_is_read_without_an_error(body: bytes, size: int) -> None:
    found = decompress(struct.pack("<IIII", len(body) + 12, size, 0x75465A4C, 0) + body, Budget())
    assert found is not None
    text_of_rtf(found, Budget())
    text_of_rtf(b"{\\rtf1\\fromhtml1 " + body, Budget())
