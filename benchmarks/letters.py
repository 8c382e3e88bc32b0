"""Mails for the benchmark `mail`: ordinary ones, their mutants, and pathological ones."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from email.message import EmailMessage

WORDS = ["the", "report", "for", "next", "week", "is", "ready", "and", "please", "read", "größe"]
MIB = 1 << 20
ADDRESSES = (b"From", b"To", b"Cc", b"Bcc", b"Reply-To")
DATA, SIGNED, COMPRESSED = (bytes.fromhex(each) for each in ("06092a864886f70d010701",
    "06092a864886f70d010702", "060b2a864886f70d0109100109"))  # fmt: skip
"""The object identifiers of S/MIME."""


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


def _stored_rtf(text: bytes) -> bytes:
    """Return TNEF with RTF that is not compressed."""
    stream = struct.pack("<IIII", len(text) + 12, len(text), 0x414C454D, 0) + text
    return _tnef(_mapi([_property(0x1009, 0x0102, stream)]))


def _property(tag: int, kind: int, data: bytes) -> bytes:
    return struct.pack("<HHII", kind, tag, 1, len(data)) + data + bytes(-len(data) % 4)


def _mapi(properties: list[bytes], attribute: int = 0x00069003) -> bytes:
    data = struct.pack("<I", len(properties)) + b"".join(properties)
    return struct.pack("<BII", 1, attribute, len(data)) + data + b"\0\0"


def _code_page(attributes: bytes) -> bytes:
    """Return TNEF with a code page that does not exist."""
    return _tnef(struct.pack("<BII", 1, 0x00069007, 8) + struct.pack("<II", 77_777, 0) + b"\0\0"
        + attributes)  # fmt: skip


def _bomb(times: int) -> bytes:
    """Return the bytes of TNEF with RTF that grows to 2 MiB."""
    return b"\x78\x9f\x3e\x22\1\0" + _rtf((b"\xff" + b"\x00\x0f" * 8) * times)


def _file(data: bytes, attribute: int = 0x0006800F) -> bytes:
    """Return the attributes of a file in TNEF."""
    return (struct.pack("<BII", 2, 0x00069002, 14) + bytes(16)
        + struct.pack("<BII", 2, attribute, len(data)) + data + b"\0\0")  # fmt: skip


def _multi(parts: list[bytes]) -> bytes:
    return _typed("multipart/mixed; boundary=b",
        b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n")  # fmt: skip


def _high(count: int, seed: int) -> bytes:
    """Return bytes that are not ASCII."""
    rng = random.Random(seed)
    return bytes(rng.randrange(0x80, 0x100) for _ in range(count))


def _der(tag: int, data: bytes) -> bytes:
    size = len(data).to_bytes(4, "big")
    return bytes((tag, 0x84)) + size + data


def _smime(kind: bytes, content: bytes) -> bytes:
    """Return a mail of signed or compressed data."""
    inner = _der(0x30, DATA + _der(0xA0, _der(4, content)))
    body = _der(0x30, kind + _der(0xA0, _der(0x30, b"\2\1\1" + _der(0x31, b"") + inner)))
    return _pkcs7(body)


def _pkcs7(body: bytes) -> bytes:
    return _typed("application/pkcs7-mime", body, "Content-Transfer-Encoding: binary\r\n")


def _inflated(content: bytes) -> bytes:
    return _smime(COMPRESSED, zlib.compress(content, 9))


def _within(times: int, mail: bytes, wrap: Callable[[bytes], bytes]) -> bytes:
    for _ in range(times):
        mail = wrap(mail)
    return mail


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
    "distinct headers": lambda: b"".join(b"X-%d: v\r\n" % n for n in range(50_000)) + b"\r\nx",
    "8-bit headers": lambda: b"".join(b"X-%d: %s\r\n" % (n, _high(5, n)) for n in range(40_000))
        + b"\r\nx",
    "word flood": lambda: b"".join(b"X-%d: %s\r\n" % (n, b"=?utf-8?q?=41?= " * 15)
        for n in range(20_000)) + b"\r\nx",
    "date fields": lambda: (b"Date: " + b"1 jan " * 48 + b"\r\n") * 13_000 + b"\r\nx",
    "junk words": lambda: b"a b\r\nTo: c\r\n" * 24_000 + b"\r\nx",
    "blank continuations": lambda: b"Subject: x\r\n" + b" \r\n" * 49_000 + b"To: a@b\r\n\r\nx",
    "types and boundaries": lambda: b"Subject: x\r\n" + b"Content-Type: a\r\n" * 20
        + (b"--a\r\nContent-Type: " + b"x" * 1_900 + b"\r\n") * 2_000 + b"\r\nx",
    "From lines": lambda: b"From a\r\n" * 500_000 + b"Subject: x\r\n\r\nx",
    "long From line": lambda: b"From " + b"1" * 4_000_000 + b"\r\nSubject: x\r\n\r\nx",
    "five fields of people": lambda: b"".join(name + b": " + b"a," * 400_000 + b"\r\n"
        for name in ADDRESSES) + b"\r\nx",
    "five fields of words": lambda: b"".join(
        name + b": " + b"=?x?q?=E9?= <a@b>," * 40_000 + b"\r\n" for name in ADDRESSES) + b"\r\nx",
    "fragments of at signs": lambda: b"To: " + (b"@ " * 100 + b",") * 9_000 + b"\r\n\r\nx",
    "at signs in groups": lambda: b"To: " + (b"g: " + b'"a"@ ' * 30 + b";") * 9_000
        + b"\r\n\r\nx",
    "a name of commas": lambda: b"To: " + b"a, " * 300_000 + b"<a@example.org>\r\n\r\nx",
    "words of commas": lambda: b"To: " + (b"=?utf-8?q?" + b"=2C" * 200 + b"?=, ") * 3_000
        + b"\r\n\r\nx",
    "nested comments": lambda: b"To: a@b " + b"(" * 200_000 + b"x" + b")" * 200_000
        + b"\r\n\r\nx",
    "spaced dots": lambda: b"To: a@b" + b" . c" * 200_000 + b"\r\n\r\nx",
    "8-bit people": lambda: b"To: " + b"".join(_high(6, n) + b" <a%d@example.org>, " % n
        for n in range(60_000)) + b"\r\n\r\nx",
    "unknown labels of words": lambda: b"Subject: " + b" ".join(b"=?x-%d?q?=%02X=E8=%02X?=" % (
        n, 0x80 + n % 120, 0x85 + n % 99) for n in range(5_000)) + b"\r\n\r\nx",
    "question marks": lambda: b"Subject: =?a?q?" + b"?=41" * 60_000 + b"\r\n\r\nx",
    "references": lambda: b"References: " + b"<a@b> " * 600_000 + b"\r\n\r\nx",
    "8-bit parts": lambda: _multi([b"Content-Type: text/plain; charset=x\r\n\r\n" + _high(900, n)
        for n in range(1_000)]),
    "8-bit and ASCII parts": lambda: _multi([b"Content-Type: text/plain\r\n\r\n" + b"abc d " * 600
        + _high(300, n) for n in range(999)]),
    "8-bit file names": lambda: _multi([b'Content-Disposition: attachment; filename="%s"\r\n\r\nx'
        % _high(30, n) for n in range(1_000)]),
    "labels of parts": lambda: _multi([b"Content-Type: text/plain; charset=x-%d\r\n\r\nx" % n
        for n in range(1_000)]),
    "parameters of parts": lambda: _multi([b"Content-Type: text/plain" + b";a=b" * 1_000
        + b"\r\nContent-Disposition: attachment" + b";c=d" * 1_000 + b"\r\n\r\nx"] * 1_000),
    "distinct parameters": lambda: _typed("multipart/mixed" + "".join(f";\r\n p{n}=v"
        for n in range(100_000)) + "; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n"),
    "blanks of parameters": lambda: _multi([b"Content-Type: text/plain; name=x" + b" " * 60_000
        + b"y\r\n\r\nx"] * 50),
    "blanks before a fold": lambda: _typed("application/pdf;" + " " * 60_000 + "\r\n name=x", b"x"),
    "blanks of a boundary": lambda: _typed("multipart/mixed; boundary=a" + " " * 60_000 + "b",
        b"--a\r\n\r\nx\r\n"),
    "commas of a parameter": lambda: _typed("application/pdf; name=x" + "," * 60_000 + "y", b"x"),
    "letters of parameters": lambda: _multi([b"Content-Type: text/plain; " + b"a" * 60_000
        + b"\r\n\r\nx"] * 100),
    "continuations of parts": lambda: _multi([b"Content-Type: application/pdf;"
        + b";".join(b"name*%d*=%%41" % n for n in range(900)) + b"\r\n\r\nx"] * 300),
    "long line with CR": lambda: b"Subject: x\rTo: a@b\r\r" + b"a" * 2_000_000,
    "CR and CR LF": lambda: b"Subject: x\rTo: a@b\r\r" + (b"a" * 60_000 + b"\r\n") * 60,
    "multiparts": lambda: _typed("multipart/mixed; boundary=b", b"".join(
        b"--b\r\nContent-Type: multipart/mixed; boundary=x%d\r\n\r\n" % n for n in range(10_000))),
    "other boundaries of siblings": lambda: _typed("multipart/mixed; boundary=b",
        b"--b\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--y\r\nContent-Type: a/b\r\n\r\n"
        * 30_000),
    "preambles": lambda: _typed("multipart/mixed; boundary=b",
        b"--b\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\nwords\r\n" * 60_000),
    "empty boundaries": lambda: _typed('multipart/mixed; boundary=""',
        b"--\r\n\r\nx\r\n" * 100_000),
    "boundaries that end": lambda: _typed("multipart/mixed; boundary=b", b"--b--\r\n" * 300_000),
    "lines of forwarded mails": lambda: _typed("message/rfc822",
        b"Content-Type: message/rfc822\r\n\r\n" * 10 + b"Subject: x\r\n\r\nx" + b"\r\nabc " * MIB),
    "dashes of forwarded mails": lambda: _typed("message/rfc822",
        b"Content-Type: message/rfc822\r\n\r\n" * 10
        + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + b"--\r\n" * MIB),
    "alternatives": lambda: _typed("multipart/alternative; boundary=b",
        b"--b\r\nContent-Type: text/html\r\n\r\n<b>x\r\n" * 1_000),
    "digest": lambda: _typed("multipart/digest; boundary=b",
        b"--b\r\n\r\nSubject: x\r\n\r\ny\r\n" * 50_000),
    "encoded multipart": lambda: _typed("multipart/mixed; boundary=b",
        base64.encodebytes(b"--b\r\n\r\nx\r\n" * 500_000), "Content-Transfer-Encoding: base64\r\n"),
    "blank lines of base64": lambda: _typed("application/pdf", b"\r\n" * 300_000 + b"QUFB\r\n",
        "Content-Transfer-Encoding: base64\r\n"),
    "blank lines of base64 text": lambda: _typed("text/plain", b" \r\n" * 300_000 + b"QUFB\r\n",
        "Content-Transfer-Encoding: base64\r\n"),
    "dashes of base64": lambda: _typed("application/pdf", b"QUFB\r\n--\r\n\r\n" * 200_000,
        "Content-Transfer-Encoding: base64\r\n"),
    "words behind base64": lambda: _typed("application/pdf", b"QUFB" * 20 + b"\r\n\r\n"
        + b"a a" * MIB, "Content-Transfer-Encoding: base64\r\n"),
    "begin-base64": lambda: _typed("application/pdf", b"begin-base64 644 a\r\n"
        + b"QUFB\r\n" * 300_000, "Content-Transfer-Encoding: x-uuencode\r\n"),
    "broken uuencode": lambda: _typed("application/pdf", b"begin 644 a\r\n" + b"Mabc\r\n" * 300_000,
        "Content-Transfer-Encoding: x-uuencode\r\n"),
    "uuencoded files": lambda: _typed("text/plain", b"begin 644 a\n#0V%T\n`\nend\n" * 45_000),
    "quoted ends": lambda: _typed("text/plain", b"=3D=\r\n=\r\n = \r\n" * 500_000,
        "Content-Transfer-Encoding: quoted-printable\r\n"),
    "tags that end in quotes": lambda: _html('<p ">" ' * 140_000),
    "tags that end in other quotes": lambda: _html("<p a='>\"<p b=\">'" * 60_000),
    "blanks of fonts": lambda: _html(("<p style='font:" + " " * 4_980 + "'>x") * 200),
    "comments of styles": lambda: _html(("<p style='" + "/*" * 2_490 + "'>x") * 200),
    "declarations": lambda: _html(("<p style='" + "; " * 2_490 + "'>x") * 200),
    "comments of a sheet": lambda: _html(("<style>.none{}" + "/*" * 95_000 + "</style>") * 5),
    "long selectors": lambda: _html("<style>" + (".a" * 2_000 + " " * 900 + ",b{display:none}") * 40
        + "</style><p class='" + "a " * 400 + "'>x"),
    "rules": lambda: _html("<style>" + "".join(f".a{n}{{display:none}}" for n in range(2_000))
        + "</style>" + "".join(f"<p class='a{n} b c d e'>x" for n in range(35_000))),
    "at rules": lambda: _html("<style>none" + "@a{b{c}" * 28_000 + "</style>"),
    "links of a line": lambda: _html("<a href=http://e/>x</a>" * 44_000),
    "cells of a line": lambda: _html("<td>x" * 150_000),
    "links around words": lambda: _html("<div><a href=http://e.org/>" * 12_000 + "x" * 500_000
        + "</a>" * 12_000),
    "links of marks": lambda: _html(("<a href=http://e.org/>" + "<b>" * 31) * 4_000
        + "word " * 80_000 + "</a>" * 4_000),
    "unclosed tags": lambda: _html("<ul><li><dl><dt><dd><table><tr><td><p><a href=http://x.y/>z"
        * 17_000),
    "ends of other tags": lambda: _html("<b>" * 70_000 + "</i>" * 70_000),
    "hidden elements": lambda: _html("<div hidden>x</div>" * 50_000),
    "soft hyphens": lambda: _html("a\u00ad" * 300_000),
    "character references": lambda: _html("&#x110000;&#xD800;&notit;" * 40_000),
    "wide HTML": lambda: _multi([b"Content-Type: text/html; charset=utf-8\r\n\r\n"
        + "\U0001f600".encode() + b"<p>abcdefg" * 103_000] * 4),
    "wide text": lambda: _multi([b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
        + "\U0001f600".encode() + b"a" * 1_040_000] * 4),
    "flowed quotes": lambda: _typed("text/plain; format=flowed", b">" * MIB + b" \r\n"),
    "calendar parameters": lambda: _typed("text/calendar", b"BEGIN:VEVENT\r\nATTENDEE"
        + b";A=" * 250_000 + b'"\r\n'),
    "UTF-7": lambda: _typed("text/plain; charset=utf-7", b"+\xff" * 500_000),
    "GB 18030": lambda: _typed("text/plain; charset=gb2312", b"\x81\x30\xff" * 340_000),
    "EUC-JP": lambda: _typed("text/plain; charset=euc-jp", b"\x8f\xa1\xff" * 340_000),
    "UTF-16": lambda: _typed("text/plain; charset=utf-16", b"\x00\xd8" * 500_000),
    "RTF code pages": lambda: _stored_rtf(b"{\\rtf1" + b"".join(b"\\ansicpg%d" % n
        for n in range(150_000)) + b"}"),
    "RTF escapes": lambda: _stored_rtf(b"{\\rtf1" + b"\\'e9" * 500_000 + b"}"),
    "RTF with HTML": lambda: _stored_rtf(b"{\\rtf1\\fromhtml1 "
        + b"{\\*\\htmltag84 <p>}x" * 100_000 + b"}"),
    "RTF bombs of messages": lambda: _tnef(b"".join(_file(
        struct.pack("<I", 1) + _property(0x3701, 13, bytes(16) + _bomb(8_000)), 0x00069005)
        for _ in range(60))),
    "RTF bombs of parts": lambda: _multi([b"Content-Type: application/ms-tnef\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(_bomb(8_000))] * 40),
    "TNEF values": lambda: _tnef(_mapi([struct.pack("<HHI", 0x1003, 0x1000, 10_000)]) * 10_000),
    "TNEF 8-bit texts": lambda: _code_page(_mapi([_property(0x3001 + n % 9, 30, _high(8, n))
        for n in range(1_000)]) * 50),
    "TNEF file names": lambda: _code_page(b"".join(_file(_high(20, n), 0x00018010)
        for n in range(500))),
    "wide TNEF": lambda: _typed("application/ms-tnef", b"\x78\x9f\x3e\x22\1\0" + _mapi(
        [_property(0x1013, 31, b"\x3d\xd8\0\xde" * 3_500_000)]),
        "Content-Transfer-Encoding: binary\r\n"),
    "large TNEF": lambda: _typed("application/ms-tnef", b"\x78\x9f\x3e\x22\1\0"
        + _file(bytes(7_000_000)) * 2, "Content-Transfer-Encoding: binary\r\n"),
    "S/MIME elements": lambda: _base64("application/pkcs7-mime", b"\x30\x80" + b"\4\0" * 5_000_000),
    "S/MIME pieces": lambda: _pkcs7(b"\x30\x80" + SIGNED + b"\xa0\x80\x30\x80\2\1\1\x30\x80" + DATA
        + b"\xa0\x80\x24\x80" + b"\4\1a" * 3_000_000 + bytes(12)),
    "S/MIME parts": lambda: _multi([_pkcs7(b"\x30\x80" + b"\4\0" * 50_000)] * 100),
    "S/MIME bomb of lines": lambda: _inflated(b"Subject: x\r\n\r\n" + b"\n" * 31_000_000),
    "S/MIME bomb of headers": lambda: _inflated(b"a:\n" * 2_700_000),
    "S/MIME bomb of parts": lambda: _inflated(
        _typed("multipart/mixed; boundary=b", b"--b\r\n" * 1_600_000)),
    "S/MIME bombs": lambda: _multi([_inflated(_typed("application/pdf", b"a\r\n" * MIB))] * 20),
    "nested S/MIME bomb": lambda: _within(4, _typed("text/plain", b"a\r\n" * 2_600_000), _inflated),
    "nested S/MIME": lambda: _within(10, _typed("text/plain", b"word \r\n" * 2_000_000),
        lambda mail: _smime(SIGNED, mail)),
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
