"""Containers that the reader opens, made by another implementation: signed S/MIME, and TNEF."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID

from core.mail import Mail, Part, read

INNER = (
    "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße, signed\r\n"
    '--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename="a.pdf"\r\n'
    "Content-Transfer-Encoding: base64\r\n\r\nUERG\r\n--b--\r\n"
)


def opened(content_type: str, data: bytes) -> tuple[Mail, dict[str | None, bytes]]:
    """Read a mail with one part; return it with its files by name."""
    files: list[tuple[Part, bytearray]] = []
    head = (
        f"From: ann@example.org\r\nMIME-Version: 1.0\r\nContent-Type: {content_type}\r\n"
        "Content-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )

    def take(part: Part) -> object:
        files.append((part, bytearray()))
        return files[-1][1].extend

    mail = read(head.encode() + base64.encodebytes(data), take, lambda _: None)  # type: ignore[arg-type]
    return mail, {part.filename: bytes(content) for part, content in files}


def signed(data: bytes) -> bytes:
    """Return the data in a PKCS #7 structure with its signature (RFC 8551, section 3.5.2)."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ann")])
    begin = datetime(2026, 1, 1)  # noqa: DTZ001  the library takes UTC without a zone
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, begin)
    certificate = certificate.not_valid_after(begin + timedelta(days=1))
    builder = pkcs7.PKCS7SignatureBuilder().set_data(data)
    builder = builder.add_signer(certificate.sign(key, hashes.SHA256()), key, hashes.SHA256())
    return builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary])


def attribute(level: int, id: int, data: bytes) -> bytes:
    """Return an attribute of TNEF with its checksum (MS-OXTNEF, section 2.1.3)."""
    return struct.pack("<BII", level, id, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)


def test_the_words_and_files_of_signed_mail_are_read() -> None:
    kind = 'application/pkcs7-mime; smime-type=signed-data; name="smime.p7m"'
    mail, files = opened(kind, signed(INNER.encode()))
    assert (mail.text, files) == ("Grüße, signed", {"a.pdf": b"PDF"})
    assert "opened-container" in mail.reading()["repaired"]


def test_the_words_and_files_of_winmail_dat_are_read() -> None:
    data = struct.pack("<IH", 0x223E9F78, 1)
    data += attribute(1, 0x0002800C, b"words of Outlook\0")
    data += attribute(2, 0x00069002, bytes(14))
    data += attribute(2, 0x00018010, b"report.txt\0") + attribute(2, 0x0006800F, b"the report")
    mail, files = opened("application/ms-tnef; name=winmail.dat", data)
    assert (mail.text, files) == ("words of Outlook", {"report.txt": b"the report"})


def test_a_container_that_cannot_be_read_stays_a_file() -> None:
    mail, files = opened("application/ms-tnef; name=winmail.dat", b"no TNEF at all")
    assert (mail.text, files) == ("", {"winmail.dat": b"no TNEF at all"})


def pem(data: bytes) -> bytes:
    """Return data between the lines of PEM."""
    return b"-----BEGIN PKCS7-----\n" + base64.encodebytes(data) + b"-----END PKCS7-----\n"


@pytest.mark.parametrize("wrapped", [pem, base64.encodebytes], ids=["PEM", "base64"])
def test_a_container_that_was_encoded_once_more_is_opened(
    wrapped: Callable[[bytes], bytes],
) -> None:
    kind = 'application/pkcs7-mime; smime-type=signed-data; name="smime.p7m"'
    mail, files = opened(kind, wrapped(signed(INNER.encode())))
    assert (mail.text, files) == ("Grüße, signed", {"a.pdf": b"PDF"})


def tlv(tag: int, *parts: bytes) -> bytes:
    """Return an element of BER with a length of two bytes (X.690, section 8.1)."""
    content = b"".join(parts)
    return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content


@pytest.mark.parametrize("size", [7, 100])
def test_signed_content_in_pieces_is_joined(size: int) -> None:
    """Outlook and streaming signers cut the content into pieces (X.690, section 8.7.3)."""
    signed_data, data = bytes.fromhex("2a864886f70d010702"), bytes.fromhex("2a864886f70d010701")
    content = INNER.encode()
    pieces = [tlv(0x04, content[at : at + size]) for at in range(0, len(content), size)]
    half = len(pieces) // 2
    # One piece is itself in pieces.
    string = tlv(0x24, *pieces[:half], tlv(0x24, *pieces[half:]))
    encapsulated = tlv(0x30, tlv(0x06, data), tlv(0xA0, string))
    body = tlv(0x30, tlv(0x02, b"\x01"), tlv(0x31), encapsulated, tlv(0x31))
    mail, files = opened(
        'application/pkcs7-mime; smime-type=signed-data; name="smime.p7m"',
        tlv(0x30, tlv(0x06, signed_data), tlv(0xA0, body)),
    )
    assert (mail.text, files) == ("Grüße, signed", {"a.pdf": b"PDF"})


@pytest.mark.parametrize(
    ("kind", "data"),
    [(0x1F, "Grüße\0".encode("utf-16-le")), (0x1E, "Grüße\0".encode("cp1252"))],
    ids=["wide", "narrow"],
)
def test_the_words_of_winmail_dat_may_be_a_property(kind: int, data: bytes) -> None:
    """PidTagBody (MS-OXPROPS, section 2.618), in the message's properties."""
    properties = struct.pack("<IHHII", 1, kind, 0x1000, 1, len(data)) + data + bytes(-len(data) % 4)
    tnef = struct.pack("<IH", 0x223E9F78, 1)
    tnef += attribute(1, 0x00069007, struct.pack("<II", 1252, 0))
    tnef += attribute(1, 0x00069003, properties)
    mail, _ = opened("application/ms-tnef; name=winmail.dat", tnef)
    assert mail.text == "Grüße"
