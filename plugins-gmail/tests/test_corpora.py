"""Faults that a comparison with other readers on public corpora showed, and bounds of time."""

from __future__ import annotations

import time

import pytest

from core.mail import Mail, Part, read, text_of_html
from core.mail.transfer import Base64Decoder, QuotedPrintable

WISH = "今後、広告をご希望されない方はここへ"
MIXED = b"Content-Type: multipart/mixed; boundary=B\n\n"


def files(source: bytes) -> tuple[Mail, list[bytes]]:
    found: list[bytearray] = []

    def opened(_: Part) -> object:
        found.append(bytearray())
        return found[-1].extend

    mail = read(source, opened)  # type: ignore[arg-type]
    return mail, [bytes(each) for each in found]


def test_a_nested_multipart_may_repeat_the_boundary() -> None:
    source = (
        MIXED + b"--B\nContent-Type: multipart/alternative; boundary=B\n\n"
        b"--B\n\nthe text\n--B\nContent-Type: text/html\n\n<p>the text\n--B--\n\n"
        b"--B\nContent-Type: image/gif\nContent-Disposition: attachment\n\nGIF\n--B--\n"
    )
    mail, found = files(source)
    assert (mail.text, found) == ("the text", [b"GIF"])


@pytest.mark.parametrize(
    ("source", "text"),
    [
        # The header lacks its boundary, and the first part has no header.
        (b"Content-Type: multipart/report; bo\n\nsaid\n\n--X/y\n\nfirst\n\n--X/y\n"
         b"Content-Type: text/plain\n\nsecond\n--X/y--\n", "first\n\nsecond"),
        # The boundary never comes, and the part has its header all the same.
        (MIXED + b"Content-Type: text/html\n\n<p>x</p>\n", "x"),
        # A boundary with a colon follows the header without a blank line.
        (b'Subject: s\nContent-Type: multipart/mixed; boundary="--9:1"\n----9:1\n'
         b"Content-Type: text/plain\n\nx\n----9:1--\n", "x"),
        (b"\nInstructions:\n\ngit clone\n", "Instructions:\n\ngit clone"),
        (b"Content-Type: text/plain; charset=us-ascii\n\n" + WISH.encode("cp932"), WISH),
        (b"Content-Type: text/plain\n\n" + WISH.encode("euc_jp"), WISH),
    ],
)  # fmt: skip
def test_broken_structure_keeps_its_words(source: bytes, text: str) -> None:
    assert read(source).text == text


@pytest.mark.parametrize(
    ("value", "date"),
    [
        ("Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", "1997-11-21T09:55:06-06:00"),
        ("Mon, 2 Mar 2026 10:11:12 (GMT+01:00)", "2026-03-02T10:11:12+01:00"),
        ("Mon, 2 Mar 2026 10:11:12 -0800 (GMT-0700)", "2026-03-02T10:11:12-08:00"),
    ],
)
def test_comments_in_a_date_may_have_the_zone(value: str, date: str) -> None:
    found = read(f"Date: {value}\n\nx".encode()).date[0]
    assert found is not None
    assert found.isoformat() == date


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "<a href='http://x.de/y'><div>Click here</div></a>more",
            "Click here <http://x.de/y>\nmore",
        ),
        ("<a href='http://x.de/y'>Click<br>here</a>", "Click\nhere <http://x.de/y>"),
        ("<a href=http://x/1>one <a href=http://x/2>two</a>", "one <http://x/1> two <http://x/2>"),
        (f"a&#{'9' * 5_000};b", "a\ufffdb"),
    ],
)
def test_links_around_lines_keep_their_address(source: str, text: str) -> None:
    assert text_of_html(source).text == text


@pytest.mark.parametrize("piece", [1, 5, 1_000])
def test_words_behind_base64_are_not_data(piece: int) -> None:
    source = b"aGVsbG8g\r\ndGhlcmUh\r\n\r\nThis is the footer of a list.\r\n"
    decoder = Base64Decoder()
    lines = source.splitlines(keepends=True)
    pieces = [b"".join(lines[i : i + piece]) for i in range(0, len(lines), piece)]
    assert b"".join(map(decoder.feed, pieces)) + decoder.finish() == b"hello there!"


@pytest.mark.parametrize("piece", [1, 2, 3, 100])
def test_quoted_printable_does_not_depend_on_its_pieces(piece: int) -> None:
    source = b"a \r\nb= \r\nc==\r\n41 =\rd\n=4=\r\n1 =C3=A9\t\n"
    decoder = QuotedPrintable()
    pieces = [source[i : i + piece] for i in range(0, len(source), piece)]
    found = b"".join(map(decoder.feed, pieces)) + decoder.finish()
    assert found == b"a\r\nbc=41 =\rd\n=41 \xc3\xa9\n"


@pytest.mark.parametrize(
    "source",
    [
        b"\r" * 3_000_000,
        b"Content-Type: text/plain\n\n" + b"\r" * 500_000 + b"x",
        b"To: " + b'\\"' * 300_000 + b"\n\nx",
        b"To: " + b"(\\" * 300_000 + b"\n\nx",
        b"To: " + b"a (b) " * 300_000 + b"\n\nx",
        b"Content-Type: text/html\n\n" + b"&nbsp;" * 150_000 + b"x",
        b"Content-Type: a/b\nContent-Transfer-Encoding: base64\n\n" + b"=" * 5_000_000,
    ],
    ids=range(7),
)
def test_hostile_mail_takes_linear_time(source: bytes) -> None:
    began = time.process_time()
    files(source)[0].people("to")
    assert time.process_time() - began < 10  # quadratic time would be minutes
