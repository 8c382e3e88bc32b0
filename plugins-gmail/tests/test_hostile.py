"""Mails that are made to take time or memory: the reader reads each, and flags the cuts.

Each case took minutes, or hundreds of megabytes, before its bound was there.
"""

from __future__ import annotations

import base64
import struct
import tracemalloc
import zlib
from encodings import _cache as looked_up  # type: ignore[attr-defined]  # Python keeps each name

import pytest

from core.mail import Mail, read, split_reply
from core.mail.budget import MAX_INFLATED_BYTES, MAX_STEPS, Budget
from core.mail.mime import MAX_CONTAINER_BYTES
from core.mail.parameters import MIN_PARAMETERS
from core.mail.people import MIN_TOKENS

SIGNED = bytes.fromhex("06092a864886f70d010702")
COMPRESSED = bytes.fromhex("060b2a864886f70d0109100109")
DATA = bytes.fromhex("06092a864886f70d010701")
PKCS7 = b"Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: binary\n\n"
TNEF = PKCS7.replace(b"pkcs7-mime", b"ms-tnef") + b"\x78\x9f\x3e\x22\1\0"
HTML = b"Content-Type: text/html\n\n"
BASE64 = b"Content-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n"
MIXED = b"Content-Type: multipart/mixed; boundary=b\n\n"


def der(tag: int, data: bytes) -> bytes:
    return bytes((tag, 0x84)) + len(data).to_bytes(4, "big") + data


def smime(kind: bytes, content: bytes) -> bytes:
    inner = der(0x30, DATA + der(0xA0, der(4, content)))
    return PKCS7 + der(0x30, kind + der(0xA0, der(0x30, b"\2\1\1" + der(0x31, b"") + inner)))


def inflated(content: bytes) -> bytes:
    return smime(COMPRESSED, zlib.compress(content, 9))


def mapi(properties: list[bytes]) -> bytes:
    data = struct.pack("<I", len(properties)) + b"".join(properties)
    return struct.pack("<BII", 1, 0x00069003, len(data)) + data + b"\0\0"


def whole(source: bytes) -> Mail:
    """Read everything that the plugin reads."""
    mail = read(source)
    for name in ("from", "to", "cc", "bcc", "reply-to"):
        mail.people(name)
    mail.headers(), mail.date, mail.subject, split_reply(mail.text), mail.reading()
    return mail


@pytest.mark.parametrize(
    "source",
    [
        b"".join(b"X-%d: v\n" % number for number in range(49_000)) + b"\nx",
        b"".join(b"X-%d: \xe9\xe8%d\n" % (number, number) for number in range(40_000)) + b"\nx",
        (b"Date: " + b"1 jan " * 48 + b"\n") * 13_000 + b"\nx",
        b"Content-Type: application/pdf; name=x" + b" " * 60_000 + b"y\n\nx",
        b"Content-Type: application/pdf;" + b" " * 60_000 + b"\n name=x\n\nx",
        b"Content-Type: multipart/mixed; boundary=a" + b" " * 60_000 + b"b\n\n--a\n\nx\n",
        b"Content-Type: application/pdf; name=x" + b"," * 60_000 + b"y\n\nx",
        MIXED + (b"--b\nContent-Type: text/plain" + b";a=b" * 1_000 + b"\n\nx\n") * 1_000,
        b"Subject: x\rTo: a@b\r\r" + b"a" * 1_000_000,
        BASE64 + b"\n" * 300_000 + b"QUFB\n",
        HTML + b'<p ">" ' * 140_000,
        HTML + (b"<p style='font:" + b" " * 4_980 + b"'>x") * 200,
        HTML + (b"<p style='" + b"/*" * 2_490 + b"'>x") * 200,
        HTML + b"<style>.none{}" + b"/*" * 95_000 + b"</style>",
        HTML + b"<a href=http://e/>x</a>" * 44_000,
        HTML + b"<td>x" * 150_000,
        HTML + b"<div><a href=http://e.org/>" * 12_000 + b"x" * 500_000 + b"</a>" * 12_000,
        b"Content-Type: message/rfc822\n\n" * 11 + MIXED + b"--b\n\n" + b"--\n" * 2_000_000,
        TNEF + mapi([struct.pack("<HHI", 0x1003, 0x1000, 0xFFFFFFFF)]) * 9_000,
        PKCS7 + b"\x30\x80" + b"\4\0" * 5_000_000,
    ],
    ids=range(20),
)  # fmt: skip
@pytest.mark.timeout(20)
def test_hostile_mail_takes_linear_time(source: bytes) -> None:
    whole(source)


@pytest.mark.parametrize(
    ("source", "cut"),
    [
        (b"To: " + b"a, " * MAX_STEPS + b"\n\nx", "to"),
        (HTML + b"<b>" * MAX_STEPS, "text"),
        (TNEF + mapi([struct.pack("<HHII", 30, 0x3001, 1, 0)]) * MAX_STEPS, "container"),
        (PKCS7 + b"\x30\x80" + b"\4\0" * MAX_STEPS, "container"),
        (inflated(b"Subject: x\n\n" + b"a" * (MAX_INFLATED_BYTES + 100_000)), "container"),
        (MIXED + b"--b\n" + inflated(b"\n" + b"a" * (MAX_INFLATED_BYTES - 99)) + b"\n--b\n"
            + inflated(b"\n" + b"a" * 100_000) + b"\n--b--", "container"),
        (smime(SIGNED, smime(SIGNED, b"\n" + b"a" * (MAX_CONTAINER_BYTES // 2))), "container"),
        (b"Content-Type: message/rfc822\n\n" + MIXED + b"--a\n" * (3 * MAX_STEPS), "depth"),
    ],
    ids=range(8),
)  # fmt: skip
def test_what_exceeds_the_budget_of_a_mail_is_flagged(source: bytes, cut: str) -> None:
    assert cut in whole(source).cut


def test_containers_within_the_budget_are_opened() -> None:
    size = MAX_INFLATED_BYTES - 99
    mail = read(inflated(b"Content-Type: text/plain\n\nhello" + b" " * size))
    assert (mail.text, "opened-container" in mail.repaired) == ("hello", True)
    assert mail.cut == {"text"}


def test_a_container_that_is_opened_in_part_is_flagged() -> None:
    body = struct.pack("<BII", 1, 0x0002800C, 5) + b"hello" + b"\0\0"
    rest = mapi([struct.pack("<HHII", 30, 0x3001, 1, 0)] * MAX_STEPS)
    mail = read(TNEF + body + rest)
    assert (mail.text, mail.cut) == ("hello", {"container"})


def test_the_first_addresses_are_read_though_the_budget_is_used_up() -> None:
    mail = read(b"From: Ann <ann@example.org>\n" + HTML + b"<b>" * MAX_STEPS)
    assert [person.address for person in mail.people("from")] == ["ann@example.org"]
    assert mail.cut == {"text"}
    mail = read(b"To: " + b"a@example.org, " * MIN_TOKENS + b"\n" + HTML + b"<b>" * MAX_STEPS)
    assert len(mail.people("to")) > MIN_TOKENS // 10
    assert "to" in mail.cut


def test_parts_keep_their_first_parameters_though_the_budget_is_used_up() -> None:
    flood = b"--b\nContent-Type: text/plain" + b";a=b" * 1_000 + b"\n\nx\n"
    last = b'--b\nContent-Type: application/pdf; name="a.pdf"\n\nx\n--b--'
    late = last.replace(b"pdf;", b"pdf" + b";a=b" * MIN_PARAMETERS + b";")
    names = [part.filename for part in read(MIXED + flood * 300 + late[:-5] + last).parts]
    assert names == [None, "a.pdf"]


def test_the_detector_of_charsets_is_part_of_the_budget() -> None:
    mail = read(b"Content-Type: text/plain; charset=x\n\n\xcf\xf0\xe8\xe2\xe5\xf2, \xec\xe8\xf0")
    assert mail.text == "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440"
    budget = Budget()
    assert budget.take(MAX_STEPS)
    assert not budget.take(1)
    assert budget.is_spent


def test_the_lines_of_begin_base64_may_have_any_length() -> None:
    source = b"Content-Type: application/pdf\nContent-Transfer-Encoding: x-uuencode\n\n"
    text = base64.b64encode(bytes(range(256)) * 200)
    lines = b"\n".join(text[start : start + 7] for start in range(0, len(text), 7))
    found = bytearray()
    read(source + b"begin-base64 644 a.pdf\n" + lines + b"\n====\n", lambda _: found.extend)
    assert found == bytes(range(256)) * 200


def test_the_line_of_a_mailbox_file_is_no_field() -> None:
    mail = read(b"From ann@example.org Mon Jan  5 00:00:00 2026\nX-Own: y\n\nx")
    assert (mail.headers(), mail.repaired, mail.text) == ({"x-own": ["y"]}, {"mbox-line"}, "x")


def test_unknown_charsets_are_not_looked_up() -> None:
    """Python keeps each name of a codec that it has looked up, in each process, forever."""
    before = len(looked_up)
    words = b" ".join(b"=?x-hostile-%d?q?=E9?=" % number for number in range(1_000))
    whole(b"Subject: " + words + b"\n\nx")
    assert len(looked_up) - before < 50


def test_hostile_mail_takes_bounded_memory() -> None:
    sources = [
        b"Content-Type: text/calendar\n\nBEGIN:VEVENT\nATTENDEE" + b";A=" * 250_000 + b'"\n',
        inflated(b"Subject: x\n\n" + b"\n" * (MAX_INFLATED_BYTES - 99)),
        smime(SIGNED, smime(SIGNED, b"\n" + b"a" * (MAX_CONTAINER_BYTES * 3 // 4))),
    ]
    for source in sources:
        tracemalloc.start()
        try:
            read(source)
            assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
        finally:
            tracemalloc.stop()
