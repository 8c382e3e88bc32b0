"""Mails for the benchmark `mail`: ordinary ones, their mutants, and pathological ones."""

from __future__ import annotations

import base64
import random
import struct
from collections.abc import Callable, Iterator
from email.message import EmailMessage

WORDS = ["the", "report", "for", "next", "week", "is", "ready", "and", "please", "read", "größe"]
MIB = 1 << 20


def ordinary(number: int) -> bytes:
    """Return a mail with text, HTML and now and then a file."""
    rng = random.Random(number)
    text = "\n".join(" ".join(rng.choices(WORDS, k=12)) for _ in range(rng.randint(5, 60)))
    mail = EmailMessage()
    mail["From"], mail["To"] = f"Ann <ann{number % 50}@example.com>", "Bob <bob@example.org>"
    mail["Subject"], mail["Message-ID"] = f"Größe {number}", f"<{number}@example.com>"
    mail["Date"] = "Wed, 01 May 2024 12:00:00 +0000"
    mail.set_content(text)
    mail.add_alternative(f"<html><body><p>{text}</p></body></html>", subtype="html")
    if number % 5 == 0:
        mail.add_attachment(
            rng.randbytes(20_000), maintype="application", subtype="pdf", filename="report.pdf"
        )
    return mail.as_bytes()


def mutant(source: bytes, rng: random.Random) -> bytes:
    """Return a mail with a few changes: lines cut, doubled, moved, and special bytes."""
    lines = source.split(b"\n")
    for _ in range(rng.randint(1, 8)):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
            case 1:
                lines[at:at] = [lines[other]] * rng.choice([1, 1, 100, 5_000])
            case 2:
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                place = rng.randrange(len(lines[at]) + 1)
                junk = rng.choice([b" ", b"\t", b"\0", b"=?", b"?=", b'"', b"\\", b"<", b"(", b"\r",
                                   b"=", b"--", b"\xff"])  # fmt: skip
                lines[at] = lines[at][:place] + junk * rng.choice([1, 1, 1_000]) + lines[at][place:]
            case 4:
                lines[at] = bytes(rng.randrange(256) for _ in range(len(lines[at])))
            case _:
                del lines[at + 1 :]
    return b"\n".join(lines)


def _typed(kind: str, body: bytes, more: str = "") -> bytes:
    head = f"From: ann@example.org\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\n"
    return f"{head}{more}\r\n".encode() + body


def _html(body: str) -> bytes:
    return _typed("text/html; charset=utf-8", body.encode())


def _nested(depth: int) -> bytes:
    opened = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"
                     for n in range(depth))  # fmt: skip
    return b"From: a@example.org\r\n" + opened.encode() + b"\r\nx\r\n"


def _forwarded(depth: int) -> bytes:
    return b"Content-Type: message/rfc822\r\n\r\n" * depth + b"Subject: x\r\n\r\nx"


def _base64(kind: str, data: bytes) -> bytes:
    more = "Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n"
    return _typed(kind, base64.encodebytes(data), more)


def _tnef(attributes: bytes) -> bytes:
    return _base64("application/ms-tnef; name=winmail.dat", b"\x78\x9f\x3e\x22\1\0" + attributes)


def _embedded(depth: int, size: int) -> bytes:
    """Return the attributes of TNEF whose file is a message in TNEF, and so on."""
    body = bytes(size)
    for _ in range(depth):
        inner = bytes(16) + b"\x78\x9f\x3e\x22\1\0" + body
        property = struct.pack("<IHHII", 1, 0x0D, 0x3701, 1, len(inner)) + inner
        property += bytes(-len(inner) % 4)
        body = struct.pack("<BII", 2, 0x00069002, 14) + bytes(16)
        body += struct.pack("<BII", 2, 0x00069005, len(property)) + property + b"\0\0"
    return body


def _rtf(data: bytes) -> bytes:
    """Return TNEF with compressed RTF that consists of references."""
    stream = struct.pack("<IIII", len(data) + 12, 0x7FFFFFFF, 0x75465A4C, 0) + data
    property = struct.pack("<IHHII", 1, 0x0102, 0x1009, 1, len(stream)) + stream
    return struct.pack("<BII", 1, 0x00069003, len(property)) + property + b"\0\0"


PATHOLOGICAL: dict[str, Callable[[], bytes]] = {
    "nesting": lambda: _nested(20_000),
    "forwarded": lambda: _forwarded(20_000),
    "parts": lambda: _typed("multipart/mixed; boundary=b", b"--b\r\n\r\nx\r\n" * 100_000),
    "named parts": lambda: _typed("multipart/mixed; boundary=b",
        b"--b\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\nx\r\n" * 50_000),
    "empty parts": lambda: _typed("multipart/mixed; boundary=b", b"--b\r\n" * 500_000),
    "boundary prefixes": lambda: _typed("multipart/mixed; boundary=" + "b" * 60,
        (b"--" + b"b" * 59 + b"\r\n") * 200_000),
    "dashes": lambda: _typed("multipart/mixed; boundary=b", b"--" * 5_000_000),
    "other boundaries": lambda: _typed("multipart/mixed; boundary=b",
        b"--other\r\n\r\n" * 200_000 + b"--other\r\nContent-Type: text/plain\r\n\r\nx\r\n"),
    "repeated boundary": lambda: _typed("multipart/mixed; boundary=b",
        b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" * 50_000),
    "giant header": lambda: b"Subject: " + b"x " * 5_000_000 + b"\r\n\r\nx",
    "many headers": lambda: b"X-Header: value\r\n" * 500_000 + b"\r\nx",
    "folded header": lambda: b"Subject: x\r\n" + b" y\r\n" * 500_000 + b"\r\nx",
    "junk headers": lambda: b"Subject: x\r\n" + b"junk without a colon\r\nTo: a\r\n" * 100_000,
    "blank lines": lambda: b"\r\n" * 3_000_000 + b"Subject: x\r\n\r\nx",
    "recipients": lambda: b"To: " + b",\r\n ".join(b"Ann %d <ann%d@example.org>" % (n, n)
        for n in range(500_000)) + b"\r\n\r\nx",
    "many To fields": lambda: b"To: Ann <ann@example.org>\r\n" * 200_000 + b"\r\nx",
    "open quotes": lambda: b"To: " + b'"' * 500_001 + b"\r\n\r\nx",
    "open brackets": lambda: (
        b"To: " + b"<" * 1_000_000 + b"\r\nFrom: " + b"(" * 1_000_000 + b"\r\n\r\nx"
    ),
    "backslashes": lambda: (
        b'To: "' + b"\\" * 1_000_000 + b"\r\nSubject: " + b"\\" * 500_000 + b"\r\n\r\nx"
    ),
    "escaped quotes": lambda: b"To: " + b'\\"' * 300_000 + b"\r\n\r\nx",
    "escaped brackets": lambda: b"To: " + b"(\\" * 300_000 + b"\r\n\r\nx",
    "comments": lambda: b"To: " + b"a (b) " * 300_000 + b"\r\n\r\nx",
    "long address": lambda: b"To: " + b"a" * 1_000_000 + b"@" + b"\r\n\r\nx",
    "long addresses": lambda: b"To: " + (b"a" * 300 + b" @,") * 5_000 + b"\r\n\r\nx",
    "at signs": lambda: b"To: " + b"@" * 1_000_000 + b"\r\nCc: " + b"a@" * 500_000 + b"\r\n\r\nx",
    "groups": lambda: b"To: " + b"g: a@example.org;" * 50_000 + b"\r\n\r\nx",
    "encoded words": lambda: b"Subject: " + b"=?utf-8?q?=41?= " * 300_000 + b"\r\n\r\nx",
    "open words": lambda: b"Subject: " + b"=?utf-8?q?" * 300_000 + b"\r\n\r\nx",
    "words of To": lambda: b"To: " + b"=?utf-8?q?=41?= <a@example.org>, " * 100_000 + b"\r\n\r\nx",
    "parameters": lambda: _typed("text/plain" + "; a=b" * 500_000, b"x"),
    "continuations": lambda: _typed("application/pdf", b"x", "Content-Disposition: attachment;\r\n "
        + ";\r\n ".join(f"filename*{n}*=%41" for n in range(100_000)) + "\r\n"),
    "open parameter": lambda: _typed('text/plain; name="' + "\\a" * 500_000, b"x"),
    "date": lambda: (
        b"Date: " + b"1 " * 1_000_000 + b"\r\nReceived: " + b"(" * 1_000_000 + b"\r\n\r\nx"
    ),
    "received": lambda: b"Received: from x by y; 1 Jan 2026\r\n" * 300_000 + b"\r\nx",
    "base64 in a line": lambda: _typed("application/pdf", base64.b64encode(bytes(20 * MIB)),
        "Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n"),
    "base64 of signs": lambda: _typed("application/pdf", b"=" * 10_000_000,
        "Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n"),
    "base64 with blanks": lambda: _typed("application/pdf", b"QU FB " * 2_000_000,
        "Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n"),
    "base64 text": lambda: _typed("text/plain", base64.encodebytes(bytes(range(256)) * 40_000),
        "Content-Transfer-Encoding: base64\r\n"),
    "quoted-printable": lambda: _typed("text/plain", b"=41=\r\n" * 1_000_000,
        "Content-Transfer-Encoding: quoted-printable\r\n"),
    "quoted blanks": lambda: _typed("text/plain", b" " * 10_000_000 + b"x",
        "Content-Transfer-Encoding: quoted-printable\r\n"),
    "nested TNEF": lambda: _tnef(_embedded(6, MIB)),
    "uuencode in text": lambda: _typed("text/plain",
        (b"begin 644 a\n" + b"M" * 61 + b"\n") * 60_000),
    "style sheets": lambda: _html("<style>" + "@a" * 90_000 + ".none" * 90_000 + "</style>"
        + "<style>.a{display:none}</style><p class=a>x" * 40_000),
    "Japanese": lambda: _typed("text/plain; charset=iso-2022-jp", b"\x1b$B-!" * 40_000
        + b"-!" * 450_000),
    "boundaries in the header": lambda: _typed("multipart/mixed; boundary=b" + "c" * 1_000_000,
        b"x", "--a\r\nX: y\r\n" * 20_000),
    "quoted signs": lambda: _typed("text/plain", b"=" * 5_000_000,
        "Content-Transfer-Encoding: quoted-printable\r\n"),
    "uuencode": lambda: _typed("application/pdf", b"begin 644 a\r\n" + b"M" + b"A" * 60 + b"\r\n"
        + (b"M" + b"A" * 60 + b"\r\n") * 200_000 + b"`\r\nend\r\n",
        "Content-Transfer-Encoding: x-uuencode\r\n"),
    "uuencoded text": lambda: _typed("text/plain", b"begin 644 a\r\n" * 300_000),
    "bare CR": lambda: b"Subject: x\r" + b"To: a@example.org\r" * 300_000 + b"\rx",
    "CR alone": lambda: b"\r" * 5_000_000,
    "NUL": lambda: bytes(10_000_000),
    "8-bit": lambda: _typed("text/plain", b"\xe9\xff\x80 " * 3_000_000),
    "long text": lambda: _typed("text/plain", b"word " * 6_000_000),
    "flowed": lambda: _typed("text/plain; format=flowed", b"> word \r\n" * 500_000),
    "enriched": lambda: _typed("text/enriched", b"<bold><param>" * 200_000),
    "calendar": lambda: (
        _typed("text/calendar", b'BEGIN:VEVENT\r\nATTENDEE;CN="a:mailto:x\r\n' * 100_000)
    ),
    "deep HTML": lambda: _html("<div>" * 200_000 + "x"),
    "deep quotes": lambda: _html("<blockquote>" * 100_000 + "x"),
    "tables": lambda: _html("<table><tr><td>x" * 60_000),
    "open links": lambda: _html("<div><a href=http://example.org/>x" * 30_000),
    "links around lines": lambda: _html("<a href=http://example.org/><div>x</div></a>" * 25_000),
    "misnested": lambda: _html("<b><p><i>x</b>" * 60_000),
    "entities": lambda: _html("&amp" * 250_000 + "&" * 250_000),
    "numeric entities": lambda: _html("&#" + "9" * 900_000 + "; &#x41;"),
    "open comments": lambda: _html("<!--" * 250_000),
    "open tags": lambda: _html("<a " * 330_000),
    "attributes": lambda: _html("<p " + "a=b " * 250_000 + ">x"),
    "quoted attributes": lambda: _html('<p a="' * 170_000),
    "styles": lambda: _html("<p style='" + "margin:0;/*" * 90_000 + "'>x"),
    "raw elements": lambda: _html("<title>" * 140_000),
    "zero-width": lambda: _html("x" + "\u200b \u200c" * 140_000),
    "blanks": lambda: _html(" \t\n" * 330_000 + "x"),
    "no-break spaces": lambda: _html("&nbsp;" * 170_000 + "x"),
    "four HTML parts": lambda: _typed("multipart/mixed; boundary=b",
        (b"--b\r\nContent-Type: text/html\r\n\r\n" + b"<p>x" * 250_000 + b"\r\n") * 4),
    "blank lines of text": lambda: _typed("text/plain", b"\n" * 1_000_000),
    "CR of text": lambda: _typed("text/plain", b"\r" * 1_000_000 + b"\n"),
    "CR in a header": lambda: b"Subject: x" + b"\r" * 200_000 + b"y\n\nx",
    "meta": lambda: _html("<meta " * 170_000),
    "TNEF attributes": lambda: _tnef(struct.pack("<BII", 1, 0x0006800C, 0) * 500_000),
    "TNEF length": lambda: _tnef(struct.pack("<BII", 1, 0x0006800C, 0xFFFFFFFF) * 100_000),
    "TNEF properties": lambda: _tnef((struct.pack("<BII", 1, 0x00069003, 60_004)
        + struct.pack("<I", 0xFFFFFFFF) + bytes(60_000) + b"\0\0") * 100),
    "TNEF files": lambda: _tnef((struct.pack("<BII", 2, 0x00069002, 0) + b"\0\0"
        + struct.pack("<BII", 2, 0x0006800F, 100) + bytes(102)) * 50_000),
    "RTF bomb": lambda: _tnef(_rtf((b"\xff" + b"\x00\x0f" * 8) * 400_000)),
    "RTF groups": lambda: _tnef(_rtf((b"\0" + b"{{{{{{{{") * 400_000)),
    "S/MIME depth": lambda: _base64("application/pkcs7-mime", b"\x30\x80" * 1_000_000),
    "S/MIME sequence": lambda: _base64("application/pkcs7-mime",
        b"\x30\x84\x00\x98\x96\x80" + b"\x30\x00" * 5_000_000),
}  # fmt: skip
"""A function for each mail that is made to take time or memory."""


def letters(*, ordinary_count: int, mutants: int, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and source of each mail; the same in each run.

    Args:
      ordinary_count: The number of ordinary mails.
      mutants: The number of mutants.
      max_bytes: The maximum size of a pathological mail.
    """
    for number in range(ordinary_count):
        yield "ordinary", ordinary(number)
    rng = random.Random(23)
    for number in range(mutants):
        yield f"mutant {number}", mutant(ordinary(number % 50), rng)
    for name, made in PATHOLOGICAL.items():
        if len(source := made()) <= max_bytes:
            yield name, source
