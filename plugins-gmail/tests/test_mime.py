"""Real messages: malformed, truncated or hostile."""

from __future__ import annotations

import base64
import importlib.util
import json
import tracemalloc
from email import message_from_bytes
from email.policy import compat32
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import ID, Read
from support.gmail import mail
from support.gmail.parts import payload

from core.mail import MAX_DEPTH, MAX_PARTS, MailReader
from core.mail import text_of_html as html_text


def text_of_html(source: str) -> str:
    return html_text(source).text


def part(*lines: str) -> bytes:
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


# The corpus of CPython, if the interpreter includes its tests (Debian's does not)


def corpus() -> list[Path]:
    found = importlib.util.find_spec("test")
    folders = found.submodule_search_locations if found else None
    return sorted(
        path
        for folder in folders or ()
        for path in Path(folder, "test_email", "data").glob("*.txt")
    )


@pytest.mark.parametrize("path", corpus(), ids=lambda path: path.name)
def test_every_message_of_cpythons_corpus_is_read(path: Path) -> None:
    raw = path.read_bytes()
    read = Read(raw)
    assert read.rows[f"{ID}/raw"].content.data == raw  # type: ignore[union-attr]
    json.dumps([row.metadata for row in read.rows.values()])
    # The parser finds every text that the library finds.
    for each in message_from_bytes(raw, policy=compat32).walk():
        if (
            each.get_content_type() == "text/plain"
            and not each.get_filename()
            and not each.is_multipart()
        ):
            words = str(each.get_payload()).split()
            if words and each.get("Content-Transfer-Encoding", "7bit").lower() in ("7bit", "8bit"):
                everything = read.text + "".join(map(repr, read.attachments.values()))
                assert words[0].encode("ascii", "ignore").decode() in everything


# Headers


@pytest.mark.parametrize(
    "line",
    [
        "Message-ID: <[>", "Message-ID: <", "Message-ID: <a@[",
        "Content-Type: text/plain; charset*0=", 'Content-Type: "',
        "Content-Type: ;;;", "Content-Type: text/plain; charset*=''%",
        "Content-Type: multipart/mixed; boundary*0*=",
        "Content-Disposition: attachment; filename*=nothing''%ff",
        "Content-Disposition: attachment; filename*1*=x",
        "Date: Thu, 99 Foo 99999 99:99:99 +9999", "Date: 1", "From: (((((((((((", "From: <<<>>>",
        "To: a@b@c, ;:;",
        "Subject: =?utf-8?b?!!!?=", "Subject: =?nothing?q?=FF?=", "Subject: =?utf-8?q?=ED=A0=80?=",
        "Subject: \udcff\udcfe",
        "Content-Transfer-Encoding: base65", "Content-Type: text/plain; charset=rot13",
        "Content-Type: text/plain; charset=idna",
        "Content-Type: text/plain; charset=nothing", 'Content-Type: text/plain; charset="utf-8\0"',
        "Content-Type: application/\udcff", "Content-ID: <", ": no name", "no colon", "\0: \0",
    ],
)  # fmt: skip
def test_malformed_headers_do_not_hide_the_text(line: str) -> None:
    """`email.policy.default` and `get_content` raise on some of these headers."""
    read = Read(part("Subject: kept", line, "", "The text."))
    whole = read.text + repr(read.attachments)
    assert "The text." in whole
    json.dumps(dict(read.metadata), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Subject: =?utf-8?b?R3LDvMOfZQ==?= =?iso-8859-1?q?_aus_K=F6ln?=", "Grüße aus Köln"),
        ("Subject: Grüße", "Grüße"),
        ("Subject: Gr\udcfc\udcdfe", "Grüße"),
        ("Subject: two\r\n lines", "two lines"),
        ("Subject: =?utf-8?q?nul=00_and_more?=", "nul and more"),
        ("Subject: =?gb2312?b?xOO6ww==?=", "你好"),
        ("Subject: =?utf-8?b?4pyT?= done", "✓ done"),
    ],
)
def test_subjects_are_decoded(header: str, name: str) -> None:
    assert Read(part(header, "", "x")).row.name == name


@pytest.mark.parametrize(
    ("charset", "data", "text"),
    [
        ("iso-8859-1", b"caf\xe9", "café"),
        ("windows-1252", b"\x80 5", "€ 5"),
        ("us-ascii", b"caf\xc3\xa9", "café"),
        ("unknown-8bit", b"caf\xe9", "café"),
        ("x-no-such", b"caf\xc3\xa9", "café"),
        ("utf-8", b"caf\xe9!", "café!"),
        ("utf-16", "é".encode("utf-16"), "é"),
        ("koi8-r", "Привет".encode("koi8-r"), "Привет"),
        ("iso-2022-jp", "日本".encode("iso-2022-jp"), "日本"),
        ("base64", b"caf\xc3\xa9", "café"),
        ("unicode_escape", b"\\u0041", "\\u0041"),
    ],
)
def test_text_is_decoded_by_its_charset(charset: str, data: bytes, text: str) -> None:
    raw = (
        b"Content-Type: text/plain; charset=%s\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        % charset.encode()
    )
    assert Read(raw + base64.encodebytes(data)).text == text


def test_text_has_no_nul_and_no_lone_surrogates() -> None:
    assert Read(b"Content-Type: text/plain; charset=utf-8\n\na\0b").text == "ab"
    assert "\udc80" not in Read(b"Content-Type: text/plain; charset=utf-7\n\n+3IA-").text


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 75, 76, 77, 1000, 100_000])
@pytest.mark.parametrize("chunk", [1, 7, 1000, 1 << 20])
def test_base64_is_decoded_in_pieces_of_any_size(size: int, chunk: int) -> None:
    data = bytes(number % 251 for number in range(size))
    raw = mail(attachments=[("a.bin", "application/zip", data)])
    if len(raw) // chunk < 20_000:
        assert Read(raw, chunk).attachments == {"1": data}


@pytest.mark.parametrize(
    ("encoded", "data"),
    [
        (b"aGVsbG8", b"hello"),
        (b"aGVs*bG8=!", b"hello"),
        (b"aGVsbG8=aGVsbG8=", b"hellohello"),
        (b"aGVsbG8=\r\n\r\nscanned by something", b"hello"),
        (b"a", b""),
        (b"", b""),
    ],
)
def test_malformed_base64_is_decoded_as_far_as_possible(encoded: bytes, data: bytes) -> None:
    raw = b"Content-Type: application/zip\r\nContent-Transfer-Encoding: BASE64\r\n\r\n" + encoded
    assert Read(raw).attachments["root"].startswith(data)


@pytest.mark.parametrize("chunk", [1, 3, 1 << 16])
def test_quoted_printable_is_decoded_in_pieces_of_any_size(chunk: int) -> None:
    raw = (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding:"
        b" quoted-printable\r\n\r\ncaf=C3=A9 soft=\r\nbreak =ZZ and =\r\n"
    )
    assert Read(raw, chunk).text == "café softbreak =ZZ and"


def test_quoted_printable_is_decoded_in_one_overlong_line() -> None:
    line = b"=C3=A9" * 100_000
    raw = (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding:"
        b" quoted-printable\r\n\r\n" + line
    )
    assert set(Read(raw).text) == {"é"}


def test_parts_are_numbered_as_in_gmail() -> None:
    raw = part(
        "Content-Type: multipart/mixed; boundary=A", "", "preamble",
        "--A", "Content-Type: multipart/alternative; boundary=AB", "",
        "--AB", "Content-Type: text/plain", "", "plain",
        "--AB", "Content-Type: multipart/related; boundary=ABC", "",
        "--ABC", "Content-Type: text/html", "", "<p>html",
        "--ABC", "Content-Type: image/gif", "Content-ID: <pic>", "", "GIF",
        "--ABC--",
        "--AB--",
        "--A", "Content-Type: text/plain", "", "footer",
        "--A", "Content-Type: message/rfc822", "", "Subject: inner", "", "--A and more text",
        "body",
        "--A", 'Content-Disposition: attachment; filename="a.txt"', "", "attached", "",
        "--A--", "epilogue",
    )  # fmt: skip
    read = Read(raw)
    assert read.text == (
        "plain\n\nfooter\n\n---------- Forwarded message ----------\nSubject: inner\n\n"
        "--A and more text\nbody"
    )
    assert read.attachments == {
        "0.1.1": b"GIF",
        "2": b"Subject: inner\r\n\r\n--A and more text\r\nbody",
        "3": b"attached\r\n",
    }
    inline = read.rows[f"{ID}/0.1.1"].metadata
    assert (inline["inline"], inline["content_id"]) == (True, "pic")
    theirs = payload(raw, str)
    assert [leaf["partId"] for leaf in leaves(theirs)] == ["0.0", "0.1.0", "0.1.1", "1", "2", "3"]


MIXED = "Content-Type: multipart/mixed; boundary=A"


@pytest.mark.parametrize(
    "body",
    [["Content-Type: application/pdf; name=a.pdf", "", "PDF"],
     ["Content-Disposition: inline; filename=a.pdf", "", "PDF"]],
)  # fmt: skip
def test_a_forwarded_mail_that_is_one_file_keeps_both(body: list[str]) -> None:
    read = Read(part(MIXED, "", "--A", "Content-Type: message/rfc822", "", "Subject: inner", *body,
        "--A--"))  # fmt: skip
    assert read.attachments == {
        "0": "\r\n".join(["Subject: inner", *body]).encode(), "0.0": b"PDF",
    }  # fmt: skip
    assert [read.rows[f"{ID}/{id}"].name for id in ("0", "0.0")] == ["inner.eml", "a.pdf"]


def test_forwarded_mails_stand_in_their_order() -> None:
    parts = [
        line
        for number in range(12)
        for line in ("--A", "Content-Type: message/rfc822", "", f"Subject: {number}", "", "x")
    ]
    read = Read(part(MIXED, "", *parts, "--A--"))
    found = [line for line in read.text.split("\n") if line.startswith("Subject: ")]
    assert found == [f"Subject: {number}" for number in range(12)]


def leaves(found: dict[str, Any]) -> list[dict[str, Any]]:
    return (
        [leaf for each in found["parts"] for leaf in leaves(each)] if "parts" in found else [found]
    )


HTML = "Content-Type: text/html"


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["Content-Type: multipart/mixed", "", "no boundary"], ""),
        ([MIXED, "", "never comes"], "never comes"),
        ([MIXED, "", "--A", "", "cut off"], "cut off"),
        ([MIXED, "", "--A", "Content-Type: text/plain"], ""),
        ([MIXED, "", "--A", "--A", "", "second", "--A--"], "second"),
        (
            [MIXED, "", "--A", "text without headers", "", "more", "--A--"],
            "text without headers\n\nmore",
        ),
        (
            [
                "Content-Type: multipart/alternative; boundary=A",
                "",
                "--A",
                "",
                " ",
                "--A",
                HTML,
                "",
                "<p>yes",
            ],
            "yes",
        ),
        ([MIXED, "", "--A", MIXED, "", "--A", "", "same", "--A--"], "same"),
        ([HTML, "", "<html><body>only <b>html"], "only html"),
        (["", "starts with its body"], "starts with its body"),
    ],
)
def test_text_in_malformed_multiparts_is_read(lines: list[str], text: str) -> None:
    read = Read(part(*lines))
    assert text in read.text
    assert read.rows[f"{ID}/raw"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        b"\r\n\r\n",
        b"\0",
        b"x",
        b"--",
        b"From nobody Mon Jan  1 00:00:00 2026\nSubject: mbox\n\nx",
    ],
)
def test_input_that_is_hardly_a_message_is_kept(raw: bytes) -> None:
    read = Read(raw)
    assert (f"{ID}/raw" in read.rows) == bool(raw)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="a b.pdf"', "a b.pdf"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\temp\\\\a.exe"', "a.exe"),
        ("attachment; filename*=utf-8''%E2%82%AC%20rates", "€ rates"),
        ("attachment; filename*0*=utf-8''%E2%82; filename*1*=%AC; filename*2=.txt", "€.txt"),
        ('attachment; filename="=?utf-8?q?=E2=82=AC=2Epdf?="', "€.pdf"),
        ("attachment; filename*=x-unknown''%E9", "é"),
        ('attachment; filename="line\r\n break\0.txt"', "line break.txt"),
        ("attachment", None),
        (f'attachment; filename="{"x" * 3000}"', "x" * 255),
    ],
)  # fmt: skip
def test_file_names_are_decoded_and_safe(header: str, name: str | None) -> None:
    read = Read(part("Content-Type: application/pdf", f"Content-Disposition: {header}", "", "x"))
    assert read.rows[f"{ID}/root"].name == name


# HTML


def test_html_becomes_text() -> None:
    source = (
        "<html><head><title>t</title><style>p{}</style></head><body><h1>Hello</h1><p style='DISPLAY"
        " : none'>preheader</p><p style='visibility:hidden'>x</p><p hidden>x</p><p>Dear"
        " <b>you</b>,<br>two &amp; three<ul><li>one<li>two</ul><script>evil()</script><!-- hidden"
        " --><table><tr><td>a<td>b</table>"
    )
    lines = [line.strip() for line in text_of_html(source).splitlines() if line.strip()]
    assert lines == ["Hello", "Dear you,", "two & three", "one", "two", "a\tb"]


@pytest.mark.parametrize(
    "source",
    [
        "", " ", "\0", "<", "<?xml version='1.0' encoding='utf-16'?><p>x", "<div>" * 100_000,
        "<b>" * 50_000 + "x",
        "<table><tr><td>" * 5_000 + "x", "<" * 500_000, "&amp" * 200_000, "<!--" * 100_000,
        "<a " + "x=1 " * 100_000,
        "<p style='" + "margin:1em;" * 10_000 + "'>x", "<td colspan=99999999999>x",
        "<ol start=abc><li>x", "\ud800<p>x",
        "<pre>" + "x\n" * 100_000, "<table>" + "<tr><td>x<td>y" * 10_000,
        "<div style='padding-left:99999999px;margin:9999999999em'>x",
        "<table><tr><td>" + "x" * 20_000 + "<tr><td>y" * 2_000, "<blockquote>" * 3_000 + "x",
    ],
    ids=range(21),
)  # fmt: skip
def test_text_of_hostile_html_has_a_bounded_length(source: str) -> None:
    text = text_of_html(source)
    assert len(text) <= 2 * len(source)
    text.encode()


def test_deeply_nested_html_keeps_its_words() -> None:
    assert "words" in text_of_html("<div>" * 2_000 + "words" + "</div>" * 2_000)


# Bounds


def nested(depth: int) -> bytes:
    opened = "".join(
        f"Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"
        for level in range(depth)
    )
    return (opened + "Content-Type: text/plain\r\n\r\ndeep\r\n").encode()


def test_nesting_has_a_bound() -> None:
    assert Read(nested(MAX_DEPTH)).text == "deep"
    read = Read(nested(5_000))
    assert len(read.attachments) == 1, "a multipart below the limit must stay undivided"


def test_parts_have_a_bound() -> None:
    raw = (
        b"Content-Type: multipart/mixed; boundary=A\n\n"
        + b"--A\nContent-Type: image/png\n\nx\n" * (MAX_PARTS + 500)
    )
    read = Read(raw)
    assert len(read.attachments) == MAX_PARTS
    assert read.metadata["truncated"]


def test_metadata_has_a_bound() -> None:
    """The engine accepts at most 1 MiB of metadata."""
    addresses = ", ".join(f"{number}@example.org" for number in range(50_000))
    many = "\r\n".join(f"X-{number}: {'x' * 200}" for number in range(5_000))
    parts = '--A\nContent-Disposition: attachment; filename="' + "é" * 500 + '"\n\nx\n'
    for raw in (
        f"To: {addresses}\nCc: {addresses}\nBcc: {addresses}\n\nx",
        f"{many}\n\nx",
        f"Subject: {'x' * 1_000_000}\n\nx",
        "Content-Type: multipart/mixed; boundary=A\n\n" + parts * MAX_PARTS,
    ):
        for row in Read(raw.encode()).rows.values():
            assert len(json.dumps(dict(row.metadata))) < 1024 * 1024
            assert len(row.name or "") < 65_536


@pytest.mark.parametrize(
    "raw",
    [
        nested(20_000),
        b"\n" * 1_000_000,
        b"Content-Type: multipart/mixed; boundary=A\n\n" + b"--A\n" * 500_000,
        b"Content-Type: message/rfc822\n\n" * 100_000,
        b"a: b\n" * 500_000 + b"\nx",
        b"Subject: " + b"=?utf-8?q?a?= " * 100_000 + b"\n\nx",
        b"To: " + b"(" * 100_000 + b"\n\nx",
        b"To: " + b'"' * 100_000 + b"\n\nx",
        b"To: " + b"<,>" * 50_000 + b"\n\nx",
        b"Content-Type: text/plain" + b";a=b" * 100_000 + b"\n\nx",
        b'Content-Type: text/plain; a="' + b"\\" * 200_000 + b"\n\nx",
        b"Content-Disposition: attachment"
        + b"".join(b"; filename*%d*=%%41" % n for n in range(20_000)) + b"\n\nx",
        b"x" * 5_000_000,
        b"Content-Transfer-Encoding: base64\n\n" + b"=" * 2_000_000,
        b"Content-Transfer-Encoding: quoted-printable\n\n" + b"=" * 2_000_000,
        b"Content-Type: text/html\n\n" + b"<p>" * 300_000,
        b"Content-Type: multipart/mixed; boundary=A\n\n"
        + b"--A\nContent-Type: text/plain\n\nx\n" * 100_000,
        b"Content-Type: text/plain; charset=idna\n\n" + b"xn--" * 200_000,
        b"Content-Type: text/plain; charset=punycode\n\n" + b"a" * 1_000_000,
    ],
    ids=range(19),
)  # fmt: skip
@pytest.mark.timeout(120)
def test_hostile_messages_are_read_in_bounded_time(raw: bytes) -> None:
    """A case takes seconds; one of polynomial cost would exceed the time limit."""
    Read(raw)


def test_a_large_message_is_read_in_bounded_memory() -> None:
    """Measure everything except the blobs: tests keep them in memory, and the engine in files."""
    line = base64.encodebytes(b"x" * 57)
    head = (
        b"Content-Type: multipart/mixed; boundary=A\n\n--A\nContent-Type:"
        b" application/zip\nContent-Transfer-Encoding: base64\n\n"
    )
    sizes: list[int] = []
    parser = MailReader(
        lambda part: lambda data: sizes.append(len(data)), lambda part: sizes.append(part.size)
    )
    tracemalloc.start()
    try:
        parser.feed(head)
        for _ in range(50):
            parser.feed(line * 2_000)
            sizes.clear()
        parser.finish()
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert sizes[-1] == 57 * 2_000 * 50


def test_headers_of_parts_do_not_stay_in_memory() -> None:
    raw = (
        b"Content-Type: multipart/mixed; boundary=A\n\n"
        + (b"--A\n" + b"a:\n" * 20_000 + b"\nx\n") * 20
    )
    tracemalloc.start()
    try:
        assert Read(raw).text == "\n\n".join("x" * 20)
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()


# Arbitrary input

WORDS = [
    b"Content-Type: ", b"multipart/mixed; ", b"multipart/alternative; ", b"boundary=", b"A", b"B",
    b"--A", b"--B",
    b"--A--", b"\r\n", b"\n", b"\r", b"text/plain", b"text/html", b"; charset=", b"utf-8",
    b"latin-1", b"x",
    b"Content-Transfer-Encoding: ", b"base64", b"quoted-printable", b"=?utf-8?q?=?=", b"=?", b"?=",
    b"Subject: ",
    b"From: ", b"Date: ", b'"', b"(", b"<", b"=", b"=E", b"\0", b"\xff", b"\xc3\xa9", b"aGVsbG8=",
    b"Content-Disposition: attachment; filename", b"*0*=", b"*=", b"''%", b"message/rfc822", b"<p>",
    b"</div>", b" ",
    b";", b":",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(st.binary(max_size=500), st.lists(st.sampled_from(WORDS), max_size=80).map(b"".join)),
    st.integers(1, 50),
)
def test_arbitrary_input_raises_nothing(raw: bytes, chunk: int) -> None:
    read, whole = Read(raw, chunk), Read(raw)
    assert read.text == whole.text
    assert read.attachments == whole.attachments
    assert read.metadata == whole.metadata
    json.dumps(
        [[row.id, row.name, dict(row.metadata)] for row in read.rows.values()], ensure_ascii=False
    ).encode()
    read.text.encode()


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=200), st.binary(max_size=2_000), st.binary(max_size=200), st.integers(1, 300)
)
def test_messages_written_by_the_library_are_read_unchanged(
    text: str, data: bytes, other: bytes, chunk: int
) -> None:
    printable = "".join(character for character in text if character.isprintable())
    raw = mail(
        "s", printable, attachments=[("a.bin", "application/zip", data), ("b", "image/png", other)]
    )
    read = Read(raw, chunk)
    assert read.text == printable.strip()
    assert read.attachments == {"1": data, "2": other}


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_arbitrary_html_raises_nothing(source: str) -> None:
    text_of_html(source).encode()
    text_of_html(f"<div {source}><p>{source}</p>").encode()
